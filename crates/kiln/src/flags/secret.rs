//! `--secret`.

use super::csv;
use crate::error::{Error, Result};

/// A secret's name and where its bytes are. The bytes are read when a step asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What steps call it.
    pub id: String,
    /// Where it is.
    pub source: SecretSource,
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(String),
    /// In a variable of the environment.
    Env(String),
}

/// Reads `[type=file|env,]id=…[,src=…][,env=…]`. With an id alone, `has_env` decides between a variable and a file of that
/// name.
pub fn secrets(values: &[String], has_env: impl Fn(&str) -> bool) -> Result<Vec<Secret>> {
    values.iter().filter(|value| !value.is_empty()).map(|value| secret(value, &has_env)).collect()
}

fn secret(value: &str, has_env: &impl Fn(&str) -> bool) -> Result<Secret> {
    let (mut id, mut file, mut env, mut kind) = (String::new(), String::new(), String::new(), String::new());
    for field in csv::fields(value)? {
        let (key, text) = field
            .split_once('=')
            .ok_or_else(|| Error::user(format!("invalid field '{field}' must be a key=value pair")))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if text == "file" || text == "env" => text.clone_into(&mut kind),
            "type" => return Err(Error::user(format!("unsupported secret type {text:?}"))),
            "id" => text.clone_into(&mut id),
            "source" | "src" => text.clone_into(&mut file),
            "env" => text.clone_into(&mut env),
            key => return Err(Error::user(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    if kind == "env" && env.is_empty() {
        env = std::mem::take(&mut file);
    }
    if id.is_empty() {
        return Err(Error::user("secret missing ID")
            .hint("expected id=NAME, such as --secret id=token,src=token.txt"));
    }
    let source = if !env.is_empty() {
        SecretSource::Env(env)
    } else if !file.is_empty() {
        SecretSource::File(file)
    } else if kind != "file" && has_env(&id) {
        SecretSource::Env(id.clone())
    } else {
        SecretSource::File(id.clone())
    };
    Ok(Secret { id, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> SecretSource {
        secrets(&[value.to_owned()], |name| name == "SET").unwrap().remove(0).source
    }

    #[test]
    fn finds_the_source() {
        let env = |name: &str| SecretSource::Env(name.to_owned());
        let file = |path: &str| SecretSource::File(path.to_owned());
        assert_eq!(one("id=a,src=p"), file("p"));
        assert_eq!(one("id=a,source=p"), file("p"));
        assert_eq!(one("id=a,env=E"), env("E"));
        assert_eq!(one("type=env,id=a,src=E"), env("E"));
        assert_eq!(one("id=SET"), env("SET"));
        assert_eq!(one("type=file,id=SET"), file("SET"));
        assert_eq!(one("id=a"), file("a"));
        for wrong in ["a", "id=a,x=y", "src=p", "type=ssm,id=a"] {
            assert!(secrets(&[wrong.to_owned()], |_| false).is_err(), "{wrong}");
        }
    }
}

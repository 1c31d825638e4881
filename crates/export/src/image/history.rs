//! Bringing the history of an image into line with its layers.

use kiln_oci::History;

use super::Layer;

/// The comment on entries which the exporter adds.
const ADDED_COMMENT: &str = "buildkit.exporter.image.v0";
/// What is said about a layer that nobody knows anything about.
const NO_DESCRIPTION: &str = "created by buildkit";

/// Makes every layer have one entry, and every entry a time.
pub fn align_history(mut history: Vec<History>, layers: &[Layer]) -> Vec<History> {
    let told = history.iter().filter(|entry| !entry.empty_layer).count();
    if told > layers.len() {
        // More than there are layers: those on top made none.
        let mut left = layers.len();
        for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
            if left == 0 {
                entry.empty_layer = true;
            } else {
                left -= 1;
            }
        }
    }
    for layer in layers.iter().skip(told) {
        let description = if layer.description.is_empty() { NO_DESCRIPTION } else { &layer.description };
        history.push(History {
            created: layer.created,
            created_by: description.to_owned(),
            comment: ADDED_COMMENT.to_owned(),
            ..History::default()
        });
    }
    for (entry, layer) in history.iter_mut().filter(|entry| !entry.empty_layer).zip(layers) {
        entry.created = entry.created.or(layer.created);
    }
    fill_times(&mut history);
    history
}

/// Gives entries without a time that of the layer below; the first ones that of the first new layer, which is
/// the first one after an entry without a time.
fn fill_times(history: &mut [History]) {
    let mut created = None;
    let mut missing = false;
    for time in history.iter().map(|entry| entry.created) {
        match time {
            Some(time) => {
                created = Some(time);
                if missing {
                    break;
                }
            }
            None => missing = true,
        }
    }
    missing = false;
    for entry in history {
        match entry.created {
            Some(time) if missing => created = Some(time),
            Some(_) => {}
            None => {
                missing = true;
                entry.created = created;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_oci::{Descriptor, Timestamp, media_type};

    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::from_unix(seconds)
    }

    fn layers(times: &[i64]) -> Vec<Layer> {
        times
            .iter()
            .map(|time| {
                let descriptor = Descriptor::of(media_type::OCI_LAYER, &time.to_le_bytes());
                let diff_id = descriptor.digest.clone();
                Layer { descriptor, diff_id, created: at(*time), description: format!("made at {time}") }
            })
            .collect()
    }

    fn entry(created: Option<i64>, empty: bool) -> History {
        History { created: created.and_then(at), empty_layer: empty, ..History::default() }
    }

    fn times(history: &[History]) -> Vec<Option<i64>> {
        history.iter().map(|entry| entry.created.map(Timestamp::unix_seconds)).collect()
    }

    #[test]
    fn adds_what_is_missing() {
        let history = align_history(vec![entry(Some(1), false), entry(None, true)], &layers(&[1, 7]));
        assert_eq!(history.len(), 3);
        assert_eq!(
            (history[2].created_by.as_str(), history[2].comment.as_str()),
            ("made at 7", ADDED_COMMENT)
        );
        // The command without a layer gets the time of the first new layer.
        assert_eq!(times(&history), [Some(1), Some(7), Some(7)]);
    }

    #[test]
    fn takes_times_from_layers() {
        let history = align_history(
            vec![entry(Some(1), false), entry(None, false), entry(None, true), entry(None, false)],
            &layers(&[1, 5, 9]),
        );
        assert_eq!(times(&history), [Some(1), Some(5), Some(9), Some(9)]);
    }

    #[test]
    fn empties_what_has_no_layer() {
        let history = align_history(vec![entry(Some(1), false), entry(Some(2), false)], &layers(&[1]));
        assert_eq!(history.iter().map(|entry| entry.empty_layer).collect::<Vec<_>>(), [false, true]);
        assert!(align_history(Vec::new(), &[]).is_empty());
        // With no layer at all nothing tells a time.
        assert_eq!(times(&align_history(vec![entry(None, true)], &[])), [None]);
    }
}

//! The image store: `kiln image …`, and a layout on disk that other programs read as it is.

use kiln_testkit::{Place, Registry, program};
use kiln_tests::place_with_busybox;

#[test]
fn images_are_kept_named_saved_loaded_and_removed() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nRUN echo x > /x\n");
    place.run(&["build", "-t", "shop/app:1", "."]).success();
    place.run(&["image", "tag", "shop/app:1", "shop/app:2"]).success();
    let listed = place.run(&["image", "ls"]).success().stdout;
    assert!(listed.contains("shop/app"), "{listed}");

    // `skopeo` reads the store where it lies.
    let layout = program("find").arg(place.path("data")).args(["-name", "oci-layout"]).output().unwrap();
    let layout = String::from_utf8_lossy(&layout.stdout).trim().trim_end_matches("/oci-layout").to_owned();
    let names = std::fs::read_to_string(format!("{layout}/index.json")).unwrap();
    assert!(names.contains("shop/app:1") && names.contains("shop/app:2"), "{names}");

    place.run(&["image", "save", "shop/app:1", "-o", "saved.tar"]).success();
    let other = Place::new();
    let saved = place.path("work/saved.tar").display().to_string();
    other.run(&["image", "load", "-i", &saved]).success();
    assert!(other.run(&["image", "ls"]).success().stdout.contains("shop/app"));

    place.run(&["image", "rm", "shop/app:1"]).success();
    let listed = place.run(&["image", "inspect", "shop/app:1"]).failure();
    assert!(listed.stderr.contains("shop/app:1"), "{}", listed.stderr);
    place.run(&["image", "inspect", "shop/app:2"]).success();
}

#[test]
fn pull_takes_this_machines_variant_and_push_sends_it_on() {
    let (place, registry) = place_with_busybox();
    let name = registry.reference("library/busybox:latest");
    place.run(&["image", "pull", &name]).success();
    let other = registry.reference("copies/busybox:1");
    place.run(&["image", "tag", &name, &other]).success();
    place.run(&["image", "push", &other]).success();
    let inspected = program("skopeo")
        .args(["inspect", "--tls-verify=false"])
        .arg(format!("docker://{other}"))
        .output()
        .unwrap();
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
}

#[test]
fn credentials_come_from_the_clients_configuration() {
    // `user:pass` in bcrypt, as htpasswd -B makes it.
    let registry =
        Registry::start_with_password("user:$2y$05$2xta/cWAKkP0Njjfk1ot7.63IRREHa1GSGo54.E8C9gNHYJiFfj7a");
    let place = Place::new();
    let host = registry.host();
    place.write("work/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let name = registry.reference("private/app:1");
    let refused = place.run(&["build", "-t", &name, "--push", "."]).failure().stderr;
    assert!(refused.contains(&host), "{refused}");
    // base64 of user:pass
    place.write(
        "home/.docker/config.json",
        &format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"dXNlcjpwYXNz\"}}}}}}"),
    );
    place.run(&["build", "-t", &name, "--push", "."]).success();
}

//! Devices: the nodes every container has, what a step may open, and what an insecure one has besides.

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::Result;

/// Nodes in `/dev` of every container: name, major, minor. All are character devices with mode 666.
pub const CONTAINER_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// A rule of what devices a cgroup may use. `None` in a number is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub block: bool,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Reading and writing; making a node is always allowed.
    pub open: bool,
}

/// What a step's cgroup allows; everything else is refused. Any node can be made, as it is of no use without a rule here.
pub fn device_rules(insecure: bool) -> Vec<DeviceRule> {
    let any = |block, open| DeviceRule { block, major: None, minor: None, open };
    if insecure {
        return vec![any(false, true), any(true, true)];
    }
    let mut rules = vec![any(false, false), any(true, false)];
    let character = |major, minor| DeviceRule { block: false, major: Some(major), minor, open: true };
    rules.extend(CONTAINER_DEVICES.map(|(_, major, minor)| character(major, Some(minor))));
    // Pseudo terminals, their multiplexer, and the console that one of them becomes.
    rules.extend([character(136, None), character(5, Some(2)), character(5, Some(1))]);
    rules
}

/// The rules as an OCI runtime wants them; it adds what every container needs.
pub fn rules_in_spec(insecure: bool) -> Vec<LinuxDeviceCgroup> {
    let rule = |allow, typ| {
        let rule = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).access("rwm");
        rule.build().expect("all fields are set")
    };
    if insecure {
        vec![rule(true, LinuxDeviceType::C), rule(true, LinuxDeviceType::B)]
    } else {
        vec![rule(false, LinuxDeviceType::A)]
    }
}

/// Devices of an insecure step: what image builds with own file systems or virtual machines need.
pub fn insecure_devices() -> Result<Vec<LinuxDevice>> {
    const CHARACTER: [(&str, i64, i64); 6] = [
        ("/dev/kmsg", 1, 11),
        ("/dev/cuse", 10, 203),
        ("/dev/fuse", 10, 229),
        ("/dev/kvm", 10, 232),
        ("/dev/net/tun", 10, 200),
        ("/dev/loop-control", 10, 237),
    ];
    const LOOP_MAJOR: i64 = 7;
    /// Loop devices beyond the first free one.
    const LOOP_SPARE: i64 = 7;
    let mut devices = Vec::new();
    for (path, major, minor) in CHARACTER {
        devices.push(device(path, LinuxDeviceType::C, major, minor)?);
    }
    for minor in 0..=first_free_loop() + LOOP_SPARE {
        devices.push(device(&format!("/dev/loop{minor}"), LinuxDeviceType::B, LOOP_MAJOR, minor)?);
    }
    Ok(devices)
}

/// 0 where there is no loop control.
fn first_free_loop() -> i64 {
    (0..)
        .find(|i| !std::path::Path::new(&format!("/sys/block/loop{i}/loop/backing_file")).exists())
        .unwrap_or(0)
}

fn device(path: &str, typ: LinuxDeviceType, major: i64, minor: i64) -> Result<LinuxDevice> {
    let device = LinuxDeviceBuilder::default().path(path).typ(typ).major(major).minor(minor);
    Ok(device.file_mode(0o666u32).uid(0u32).gid(0u32).build()?)
}

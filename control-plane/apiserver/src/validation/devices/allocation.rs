//! The status of a claim: which devices it got, who uses them, and what their drivers tell.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceClaim,
    DeviceRequestAllocationResult, NetworkDeviceData, ResourceClaim,
    ResourceClaimConsumerReference,
};

use super::claim::{MAX_CONFIGURATIONS, Requests, validate_opaque};
use super::device::validate_binding;
use super::names::{validate_driver, validate_label, validate_pool, validate_share};
use super::taint::validate_toleration;
use super::{at_most, unique, validate_raw};
use crate::validation::address::interface_address_faults;
use crate::validation::conditions::validate_conditions;
use crate::validation::scheduling::validate_node_selector;
use crate::validation::{faults, immutable, items, one_of, text};

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
/// Bytes of what a driver tells of a device.
const MAX_DATA: usize = 10 * 1024;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_ADDRESSES: usize = 16;

/// A device, or a share of one: driver, pool, device, share.
pub(crate) type DeviceId<'a> = (&'a str, &'a str, &'a str, &'a str);

/// The status of a claim, and the claim as it was.
pub(crate) fn validate_claim_status(new: &ResourceClaim, old: &ResourceClaim) -> ErrorList {
    let mut errors = ErrorList::default();
    let at = Path::new("status");
    let none = DeviceClaim::default();
    let claim = new.spec.as_ref().and_then(|spec| spec.devices.as_ref());
    let requests = Requests::of(claim.unwrap_or(&none));
    let status = new.status.clone().unwrap_or_default();
    let before = old.status.clone().unwrap_or_default();
    let consumers = items(&status.reserved_for);
    validate_consumers(consumers, &at.child("reservedFor"), &mut errors);
    let allocated: BTreeSet<DeviceId<'_>> = status.allocation.iter().flat_map(devices_of).collect();
    validate_devices(
        items(&status.devices),
        &allocated,
        &at.child("devices"),
        &mut errors,
    );
    if !consumers.is_empty() {
        let at = at.child("reservedFor");
        let known = items(&before.reserved_for);
        if status.allocation.is_none() {
            let detail = "may not be specified when `allocated` is not set";
            errors.push(Error::forbidden(&at, detail));
        } else if new.metadata.deletion_timestamp.is_some()
            && consumers.iter().any(|consumer| !known.contains(consumer))
        {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(Error::forbidden(&at, detail));
        }
    }
    let at = at.child("allocation");
    match (&status.allocation, &before.allocation) {
        (Some(_), Some(_)) => {
            immutable(&status.allocation, &before.allocation, &at, &mut errors);
        }
        (Some(allocation), None) => {
            validate_allocation(allocation, &requests, &at, &mut errors);
        }
        (None, _) => {}
    }
    errors
}

/// The devices of an allocation.
pub(crate) fn devices_of(allocation: &AllocationResult) -> impl Iterator<Item = DeviceId<'_>> {
    let results = allocation.devices.as_ref();
    let results = results.map(|devices| items(&devices.results));
    let results = results.unwrap_or_default().iter();
    results.map(|result| {
        let share = text(&result.share_id);
        (&*result.driver, &*result.pool, &*result.device, share)
    })
}

fn validate_consumers(
    consumers: &[ResourceClaimConsumerReference],
    at: &Path,
    errors: &mut ErrorList,
) {
    if !at_most(consumers, MAX_CONSUMERS, at, errors) {
        return;
    }
    for (i, consumer) in consumers.iter().enumerate() {
        for (field, value) in [
            ("resource", &consumer.resource),
            ("name", &consumer.name),
            ("uid", &consumer.uid),
        ] {
            if value.is_empty() {
                errors.push(Error::required(&at.index(i).child(field), ""));
            }
        }
    }
    unique(consumers, |c| &c.uid, |c| c.uid.as_str().into(), at, errors);
}

fn validate_allocation(
    allocation: &AllocationResult,
    requests: &Requests<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(devices) = &allocation.devices {
        let at = at.child("devices");
        let (results, results_at) = (items(&devices.results), at.child("results"));
        if at_most(results, MAX_RESULTS, &results_at, errors) {
            for (i, result) in results.iter().enumerate() {
                validate_result(result, requests, &results_at.index(i), errors);
            }
        }
        let (config, config_at) = (items(&devices.config), at.child("config"));
        // Of the class and of the claim.
        if at_most(config, 2 * MAX_CONFIGURATIONS, &config_at, errors) {
            for (i, config) in config.iter().enumerate() {
                validate_config(config, requests, &config_at.index(i), errors);
            }
        }
    }
    if let Some(selector) = &allocation.node_selector {
        validate_node_selector(selector, &at.child("nodeSelector"), errors);
    }
}

fn validate_result(
    result: &DeviceRequestAllocationResult,
    requests: &Requests<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    requests.validate_name(&result.request, &at.child("request"), errors);
    validate_driver(&result.driver, &at.child("driver"), errors);
    validate_pool(&result.pool, &at.child("pool"), errors);
    validate_label(&result.device, &at.child("device"), errors);
    validate_binding(
        items(&result.binding_conditions),
        items(&result.binding_failure_conditions),
        at,
        errors,
    );
    for (i, toleration) in items(&result.tolerations).iter().enumerate() {
        validate_toleration(toleration, &at.child("tolerations").index(i), errors);
    }
    if let Some(share) = &result.share_id {
        validate_share(share, &at.child("shareID"), errors);
    }
}

fn validate_config(
    config: &DeviceAllocationConfiguration,
    requests: &Requests<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let sources = &["FromClaim", "FromClass"];
    one_of(&config.source, sources, &at.child("source"), errors);
    requests.validate_names(items(&config.requests), &at.child("requests"), errors);
    validate_opaque(config.opaque.as_ref(), false, at, errors);
}

fn validate_devices(
    devices: &[AllocatedDeviceStatus],
    allocated: &BTreeSet<DeviceId<'_>>,
    at: &Path,
    errors: &mut ErrorList,
) {
    for (i, device) in devices.iter().enumerate() {
        validate_device_status(device, allocated, &at.index(i), errors);
    }
    unique(
        devices,
        device_id,
        |device| shown_id(device_id(device)).into(),
        at,
        errors,
    );
}

/// The device of which a driver tells.
pub(crate) fn device_id(device: &AllocatedDeviceStatus) -> DeviceId<'_> {
    let share = text(&device.share_id);
    (&*device.driver, &*device.pool, &*device.device, share)
}

fn shown_id((driver, pool, device, share): DeviceId<'_>) -> String {
    let shown = format!("{driver}/{pool}/{device}");
    if share.is_empty() {
        shown
    } else {
        format!("{shown}/{share}")
    }
}

fn validate_device_status(
    device: &AllocatedDeviceStatus,
    allocated: &BTreeSet<DeviceId<'_>>,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_driver(&device.driver, &at.child("driver"), errors);
    validate_pool(&device.pool, &at.child("pool"), errors);
    validate_label(&device.device, &at.child("device"), errors);
    if let Some(share) = &device.share_id {
        validate_share(share, &at.child("shareID"), errors);
    }
    if !allocated.contains(&device_id(device)) {
        let detail = "must be an allocated device in the claim";
        errors.push(Error::invalid(at, shown_id(device_id(device)), detail));
    }
    let (conditions, conditions_at) = (items(&device.conditions), at.child("conditions"));
    at_most(conditions, MAX_CONDITIONS, &conditions_at, errors);
    validate_conditions(conditions, &conditions_at, errors);
    if let Some(data) = &device.data {
        validate_raw(data, false, MAX_DATA, &at.child("data"), errors);
    }
    if let Some(network) = &device.network_data {
        validate_network(network, &at.child("networkData"), errors);
    }
}

fn validate_network(network: &NetworkDeviceData, at: &Path, errors: &mut ErrorList) {
    for (field, value, max) in [
        ("interfaceName", &network.interface_name, MAX_INTERFACE),
        (
            "hardwareAddress",
            &network.hardware_address,
            MAX_HARDWARE_ADDRESS,
        ),
    ] {
        if text(value).len() > max {
            errors.push(Error::too_long(&at.child(field), max));
        }
    }
    let (addresses, at) = (items(&network.ips), at.child("ips"));
    if at_most(addresses, MAX_ADDRESSES, &at, errors) {
        for (i, address) in addresses.iter().enumerate() {
            faults(
                address,
                interface_address_faults(address),
                &at.index(i),
                errors,
            );
        }
        unique(addresses, |a| a, |a| a.as_str().into(), &at, errors);
    }
}

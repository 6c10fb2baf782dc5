//! Fields of features that Kubernetes 1.37 has switched off. As there, they are dropped without
//! an error.

use k8s_openapi::api::resource::v1::{
    Device, DeviceRequestAllocationResult, ResourceClaimSpec, ResourceSliceSpec,
};

/// DRADerivedAttributes.
pub(super) fn drop_from_claim(spec: &mut ResourceClaimSpec) {
    let requests = spec.devices.iter_mut().filter_map(|d| d.requests.as_mut());
    for request in requests.flatten() {
        if let Some(exactly) = &mut request.exactly {
            exactly.derived_attributes = None;
        }
        for choice in request.first_available.iter_mut().flatten() {
            choice.derived_attributes = None;
        }
    }
}

/// DRAOptionalNodeOperations.
pub(super) fn drop_from_result(result: &mut DeviceRequestAllocationResult) {
    result.skip_node_operations = None;
}

/// DRAOptionalNodeOperations, DRAPartitionableDevicesType, and those of devices.
pub(super) fn drop_from_slice(spec: &mut ResourceSliceSpec) {
    spec.skip_node_operations = None;
    spec.partition_type_attribute = None;
    spec.devices.iter_mut().flatten().for_each(drop_from_device);
}

/// DRAListTypeAttributes, DRANodeAllocatableResources, DRADeviceCompatibilityGroups.
fn drop_from_device(device: &mut Device) {
    device.node_allocatable_resources = None;
    for attribute in device
        .attributes
        .iter_mut()
        .flat_map(|all| all.values_mut())
    {
        attribute.bools = None;
        attribute.ints = None;
        attribute.strings = None;
        attribute.versions = None;
    }
    for consumed in device.consumes_counters.iter_mut().flatten() {
        consumed.compatibility_groups = None;
    }
}

//! Columns that volumes and claims have in common.

use coracle_apimachinery::resources::parse;

use crate::registry::strategy::Column;
use crate::validation::resources::ResourceList;

pub(super) fn access_modes_column() -> Column {
    Column::text("Access Modes", "In which ways it can be mounted.")
}

pub(super) fn attributes_class_column() -> Column {
    Column::text(
        "VolumeAttributesClass",
        "The class of the attributes that can change.",
    )
}

pub(super) fn volume_mode_column() -> Column {
    Column::text("VolumeMode", "Whether it has a file system.").wide()
}

/// Access modes, abbreviated and in their order.
pub(super) fn access_modes(modes: &[String]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let present = short
        .iter()
        .filter(|(mode, _)| modes.iter().any(|given| given == mode));
    present
        .map(|(_, short)| *short)
        .collect::<Vec<_>>()
        .join(",")
}

/// How much a list has of storage.
pub(super) fn storage_of(list: Option<&ResourceList>) -> String {
    parse(list)
        .get("storage")
        .copied()
        .unwrap_or_default()
        .to_string()
}

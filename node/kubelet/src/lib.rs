//! Pod workers, lifecycle, probes, volumes and node status.

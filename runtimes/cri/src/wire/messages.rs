//! The table of messages, by the numbers of `api.proto`. Some that have the same fields are one.

use std::collections::BTreeMap;

use coracle_runtime::protobuf::Value;

use super::{Field, Message};

type Map = BTreeMap<String, String>;

macro_rules! messages {
    ($($name:ident { $($field:ident: $type:ty = $number:literal),* $(,)? })*) => {$(
        #[derive(Clone, Debug, Default, PartialEq)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl Message for $name {
            #[allow(unused_variables, reason = "some have no fields")]
            fn write(&self, out: &mut Vec<u8>) {
                $(Field::put(&self.$field, $number, out);)*
            }

            #[allow(unused_variables, reason = "some have no fields")]
            fn take(&mut self, number: u32, value: Value<'_>) -> Option<()> {
                match number {
                    $($number => Field::take(&mut self.$field, value),)*
                    _ => Some(()),
                }
            }
        }
    )*};
}

/// `NamespaceMode`.
pub(crate) mod namespace {
    pub(crate) const POD: i32 = 0;
    pub(crate) const CONTAINER: i32 = 1;
    pub(crate) const NODE: i32 = 2;
    pub(crate) const TARGET: i32 = 3;
}

/// `SecurityProfile.ProfileType`.
pub(crate) mod profile {
    pub(crate) const RUNTIME_DEFAULT: i32 = 0;
    pub(crate) const UNCONFINED: i32 = 1;
    pub(crate) const LOCALHOST: i32 = 2;
}

/// `MountPropagation`.
pub(crate) mod propagation {
    pub(crate) const PRIVATE: i32 = 0;
    pub(crate) const HOST_TO_CONTAINER: i32 = 1;
    pub(crate) const BIDIRECTIONAL: i32 = 2;
}

/// `SupplementalGroupsPolicy`.
pub(crate) mod groups_policy {
    pub(crate) const MERGE: i32 = 0;
    pub(crate) const STRICT: i32 = 1;
}

/// `PodSandboxState`.
pub(crate) mod sandbox_state {
    pub(crate) const READY: i32 = 0;
}

/// `ContainerState`.
pub(crate) mod container_state {
    pub(crate) const CREATED: i32 = 0;
    pub(crate) const RUNNING: i32 = 1;
    pub(crate) const EXITED: i32 = 2;
}

/// `CgroupDriver`.
pub(crate) mod cgroup_driver {
    pub(crate) const SYSTEMD: i32 = 0;
}

messages! {
    Empty {}
    KeyValue { key: String = 1, value: String = 2 }
    Int64Value { value: i64 = 1 }
    UInt64Value { value: u64 = 1 }

    VersionRequest { version: String = 1 }
    VersionResponse {
        runtime_name: String = 2,
        runtime_version: String = 3,
        runtime_api_version: String = 4,
    }
    StatusRequest { verbose: bool = 1 }
    StatusResponse {
        status: Option<RuntimeStatus> = 1,
        info: Map = 2,
        runtime_handlers: Vec<RuntimeHandler> = 3,
        features: Option<RuntimeFeatures> = 4,
    }
    RuntimeFeatures { supplemental_groups_policy: bool = 1 }
    RuntimeStatus { conditions: Vec<RuntimeCondition> = 1 }
    RuntimeCondition {
        kind: String = 1,
        status: bool = 2,
        reason: String = 3,
        message: String = 4,
    }
    RuntimeHandler { name: String = 1, features: Option<RuntimeHandlerFeatures> = 2 }
    RuntimeHandlerFeatures { recursive_read_only_mounts: bool = 1 }
    RuntimeConfigResponse { linux: Option<LinuxRuntimeConfiguration> = 1 }
    LinuxRuntimeConfiguration { cgroup_driver: i32 = 1 }

    PodSandboxMetadata {
        name: String = 1,
        uid: String = 2,
        namespace: String = 3,
        attempt: u32 = 4,
    }
    DnsConfig {
        servers: Vec<String> = 1,
        searches: Vec<String> = 2,
        options: Vec<String> = 3,
    }
    PodSandboxConfig {
        metadata: Option<PodSandboxMetadata> = 1,
        hostname: String = 2,
        log_directory: String = 3,
        dns_config: Option<DnsConfig> = 4,
        labels: Map = 6,
        annotations: Map = 7,
        linux: Option<LinuxPodSandboxConfig> = 8,
    }
    LinuxPodSandboxConfig {
        cgroup_parent: String = 1,
        security_context: Option<LinuxSandboxSecurityContext> = 2,
        sysctls: Map = 3,
        resources: Option<LinuxContainerResources> = 5,
    }
    LinuxSandboxSecurityContext {
        namespace_options: Option<NamespaceOption> = 1,
        privileged: bool = 6,
        seccomp: Option<SecurityProfile> = 9,
        supplemental_groups_policy: i32 = 11,
    }
    NamespaceOption {
        network: i32 = 1,
        pid: i32 = 2,
        ipc: i32 = 3,
        target_id: String = 4,
    }
    SecurityProfile { profile_type: i32 = 1, localhost_ref: String = 2 }
    LinuxContainerResources {
        cpu_period: i64 = 1,
        cpu_quota: i64 = 2,
        cpu_shares: i64 = 3,
        memory_limit_in_bytes: i64 = 4,
        oom_score_adj: i64 = 5,
        hugepage_limits: Vec<HugepageLimit> = 8,
        unified: Map = 9,
    }
    HugepageLimit { page_size: String = 1, limit: u64 = 2 }
    RunPodSandboxRequest { config: Option<PodSandboxConfig> = 1, runtime_handler: String = 2 }
    PodSandboxId { pod_sandbox_id: String = 1 }
    PodSandboxStatusRequest { pod_sandbox_id: String = 1, verbose: bool = 2 }
    PodSandboxStatusResponse { info: Map = 2 }
    PodSandboxFilter { id: String = 1, label_selector: Map = 3 }
    ListPodSandboxRequest { filter: Option<PodSandboxFilter> = 1 }
    ListPodSandboxResponse { items: Vec<PodSandbox> = 1 }
    PodSandbox {
        id: String = 1,
        metadata: Option<PodSandboxMetadata> = 2,
        state: i32 = 3,
        created_at: i64 = 4,
        annotations: Map = 6,
    }

    ImageSpec { image: String = 1 }
    ContainerMetadata { name: String = 1, attempt: u32 = 2 }
    Mount {
        container_path: String = 1,
        host_path: String = 2,
        readonly: bool = 3,
        propagation: i32 = 5,
        recursive_read_only: bool = 8,
    }
    ContainerConfig {
        metadata: Option<ContainerMetadata> = 1,
        image: Option<ImageSpec> = 2,
        command: Vec<String> = 3,
        args: Vec<String> = 4,
        working_dir: String = 5,
        envs: Vec<KeyValue> = 6,
        mounts: Vec<Mount> = 7,
        labels: Map = 9,
        annotations: Map = 10,
        log_path: String = 11,
        stdin: bool = 12,
        stdin_once: bool = 13,
        tty: bool = 14,
        linux: Option<LinuxContainerConfig> = 15,
        stop_signal: i32 = 18,
    }
    LinuxContainerConfig {
        resources: Option<LinuxContainerResources> = 1,
        security_context: Option<LinuxContainerSecurityContext> = 2,
    }
    LinuxContainerSecurityContext {
        capabilities: Option<Capability> = 1,
        privileged: bool = 2,
        namespace_options: Option<NamespaceOption> = 3,
        run_as_user: Option<Int64Value> = 5,
        run_as_username: String = 6,
        readonly_rootfs: bool = 7,
        supplemental_groups: Vec<i64> = 8,
        no_new_privs: bool = 11,
        run_as_group: Option<Int64Value> = 12,
        masked_paths: Vec<String> = 13,
        readonly_paths: Vec<String> = 14,
        seccomp: Option<SecurityProfile> = 15,
        apparmor: Option<SecurityProfile> = 16,
        supplemental_groups_policy: i32 = 17,
    }
    Capability { add_capabilities: Vec<String> = 1, drop_capabilities: Vec<String> = 2 }
    CreateContainerRequest {
        pod_sandbox_id: String = 1,
        config: Option<ContainerConfig> = 2,
        sandbox_config: Option<PodSandboxConfig> = 3,
    }
    ContainerId { container_id: String = 1 }
    StopContainerRequest { container_id: String = 1, timeout: i64 = 2 }
    ContainerFilter { id: String = 1, label_selector: Map = 4 }
    ListContainersRequest { filter: Option<ContainerFilter> = 1 }
    ListContainersResponse { containers: Vec<Container> = 1 }
    Container {
        id: String = 1,
        pod_sandbox_id: String = 2,
        state: i32 = 6,
        created_at: i64 = 7,
        annotations: Map = 9,
    }
    ContainerStatusResponse { status: Option<ContainerStatus> = 1 }
    ContainerStatus {
        state: i32 = 3,
        started_at: i64 = 5,
        finished_at: i64 = 6,
        exit_code: i32 = 7,
        reason: String = 10,
        message: String = 11,
        user: Option<ContainerUser> = 18,
    }
    ContainerUser { linux: Option<LinuxContainerUser> = 1 }
    LinuxContainerUser { uid: i64 = 1, gid: i64 = 2, supplemental_groups: Vec<i64> = 3 }
    UpdateContainerResourcesRequest {
        container_id: String = 1,
        linux: Option<LinuxContainerResources> = 2,
    }

    ExecSyncRequest { container_id: String = 1, cmd: Vec<String> = 2 }
    ExecSyncResponse { stdout: Vec<u8> = 1, stderr: Vec<u8> = 2, exit_code: i32 = 3 }
    ExecRequest {
        container_id: String = 1,
        cmd: Vec<String> = 2,
        tty: bool = 3,
        stdin: bool = 4,
        stdout: bool = 5,
        stderr: bool = 6,
    }
    AttachRequest {
        container_id: String = 1,
        stdin: bool = 2,
        tty: bool = 3,
        stdout: bool = 4,
        stderr: bool = 5,
    }
    StreamResponse { url: String = 1 }

    ContainerStatsFilter { label_selector: Map = 3 }
    ListContainerStatsRequest { filter: Option<ContainerStatsFilter> = 1 }
    ListContainerStatsResponse { stats: Vec<ContainerStats> = 1 }
    ContainerStatsResponse { stats: Option<ContainerStats> = 1 }
    ContainerStats {
        attributes: Option<ContainerAttributes> = 1,
        cpu: Option<CpuUsage> = 2,
        memory: Option<MemoryUsage> = 3,
        writable_layer: Option<FilesystemUsage> = 4,
    }
    ContainerAttributes { id: String = 1 }
    CpuUsage { timestamp: i64 = 1, usage_core_nano_seconds: Option<UInt64Value> = 2 }
    MemoryUsage { working_set_bytes: Option<UInt64Value> = 2 }
    FilesystemUsage {
        fs_id: Option<FilesystemIdentifier> = 2,
        used_bytes: Option<UInt64Value> = 3,
        inodes_used: Option<UInt64Value> = 4,
    }
    FilesystemIdentifier { mountpoint: String = 1 }

    Image {
        id: String = 1,
        repo_digests: Vec<String> = 3,
        size: u64 = 4,
        uid: Option<Int64Value> = 5,
        username: String = 6,
    }
    ListImagesResponse { images: Vec<Image> = 1 }
    ImageStatusRequest { image: Option<ImageSpec> = 1 }
    ImageStatusResponse { image: Option<Image> = 1 }
    AuthConfig { username: String = 1, password: String = 2 }
    PullImageRequest { image: Option<ImageSpec> = 1, auth: Option<AuthConfig> = 2 }
    PullImageResponse { image_ref: String = 1 }
    RemoveImageRequest { image: Option<ImageSpec> = 1 }
    ImageFsInfoResponse { image_filesystems: Vec<FilesystemUsage> = 1 }
}

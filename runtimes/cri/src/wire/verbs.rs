//! The calls: where each goes, what it takes and what it gives.

use std::marker::PhantomData;

use super::messages::*;

/// A call that takes `A` and gives `B`.
pub(crate) struct Verb<A, B> {
    /// `/package.Service/Call`.
    pub(crate) path: &'static str,
    of: PhantomData<fn(A) -> B>,
}

macro_rules! verbs {
    ($($name:ident = $service:literal / $call:literal ($from:ty) -> $to:ty;)*) => {$(
        pub(crate) const $name: Verb<$from, $to> = Verb {
            path: concat!("/runtime.v1.", $service, "/", $call),
            of: PhantomData,
        };
    )*};
}

verbs! {
    VERSION = "RuntimeService"/"Version"(VersionRequest) -> VersionResponse;
    STATUS = "RuntimeService"/"Status"(StatusRequest) -> StatusResponse;
    RUNTIME_CONFIG = "RuntimeService"/"RuntimeConfig"(Empty) -> RuntimeConfigResponse;
    RUN_POD_SANDBOX = "RuntimeService"/"RunPodSandbox"(RunPodSandboxRequest) -> PodSandboxId;
    STOP_POD_SANDBOX = "RuntimeService"/"StopPodSandbox"(PodSandboxId) -> Empty;
    REMOVE_POD_SANDBOX = "RuntimeService"/"RemovePodSandbox"(PodSandboxId) -> Empty;
    POD_SANDBOX_STATUS =
        "RuntimeService"/"PodSandboxStatus"(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    LIST_POD_SANDBOX = "RuntimeService"/"ListPodSandbox"(ListPodSandboxRequest) -> ListPodSandboxResponse;
    CREATE_CONTAINER = "RuntimeService"/"CreateContainer"(CreateContainerRequest) -> ContainerId;
    START_CONTAINER = "RuntimeService"/"StartContainer"(ContainerId) -> Empty;
    STOP_CONTAINER = "RuntimeService"/"StopContainer"(StopContainerRequest) -> Empty;
    REMOVE_CONTAINER = "RuntimeService"/"RemoveContainer"(ContainerId) -> Empty;
    LIST_CONTAINERS = "RuntimeService"/"ListContainers"(ListContainersRequest) -> ListContainersResponse;
    CONTAINER_STATUS = "RuntimeService"/"ContainerStatus"(ContainerId) -> ContainerStatusResponse;
    UPDATE_CONTAINER_RESOURCES =
        "RuntimeService"/"UpdateContainerResources"(UpdateContainerResourcesRequest) -> Empty;
    REOPEN_CONTAINER_LOG = "RuntimeService"/"ReopenContainerLog"(ContainerId) -> Empty;
    EXEC_SYNC = "RuntimeService"/"ExecSync"(ExecSyncRequest) -> ExecSyncResponse;
    EXEC = "RuntimeService"/"Exec"(ExecRequest) -> StreamResponse;
    ATTACH = "RuntimeService"/"Attach"(AttachRequest) -> StreamResponse;
    LIST_CONTAINER_STATS =
        "RuntimeService"/"ListContainerStats"(ListContainerStatsRequest) -> ListContainerStatsResponse;
    CONTAINER_STATS = "RuntimeService"/"ContainerStats"(ContainerId) -> ContainerStatsResponse;
    LIST_IMAGES = "ImageService"/"ListImages"(Empty) -> ListImagesResponse;
    IMAGE_STATUS = "ImageService"/"ImageStatus"(ImageStatusRequest) -> ImageStatusResponse;
    PULL_IMAGE = "ImageService"/"PullImage"(PullImageRequest) -> PullImageResponse;
    REMOVE_IMAGE = "ImageService"/"RemoveImage"(RemoveImageRequest) -> Empty;
    IMAGE_FS_INFO = "ImageService"/"ImageFsInfo"(Empty) -> ImageFsInfoResponse;
}

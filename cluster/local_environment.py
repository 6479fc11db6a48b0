"""What a job in this machine's queue keeps of its submitter's environment: where things are, and no secrets."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.secret_values import SECRET_NAME, WITH_USERINFO

NAMES = frozenset({
    "HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CASTBANK_HOME", "HF_HOME", "XDG_CACHE_HOME",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
})  # fmt: skip
FAMILIES = (  # names that begin so; each ends in _, or LANG would let LANGCHAIN_API_KEY through
    "LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "NCCL_", "GLOO_", "DS_", "TORCH_", "TRITON_", "PIP_",
)  # fmt: skip


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a job may have."""
    return {name: value for name, value in environment.items() if _harmless(name, value)}


def _harmless(name: str, value: str) -> bool:
    if name not in NAMES and not name.startswith(FAMILIES):
        return False
    if name.upper().endswith("_PROXY") and "@" in value:  # USER:PASSWORD@HOST may have no scheme before it
        return False
    return not SECRET_NAME.search(name) and not WITH_USERINFO.search(value)

"""What a job keeps of its submitter's environment."""

from __future__ import annotations

import pytest

from cluster.local_environment import passed_on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LANGCHAIN_API_KEY", "x"),
        ("LANGSMITH_ENDPOINT", "x"),
        ("HOMEBREW_GITHUB_API_TOKEN", "x"),
        ("USER_TOKEN", "x"),
        ("PATHS_OF_SOMEBODY", "x"),
        ("npm_config__authToken", "x"),
        ("npm_config_registry", "https://npm.example"),
        ("NVIDIA_API_KEY", "x"),
        ("PIP_PASSWORD", "x"),
        ("TORCH_HUB_TOKEN", "x"),
        ("DS_SECRET", "x"),
        ("PIP_INDEX_URL", "https://TOKEN@pypi.example/simple"),
        ("PIP_EXTRA_INDEX_URL", "https://a.example https://user:word@pypi.example/simple"),
        ("HTTPS_PROXY", "http://user:word@proxy.example:3128"),
        ("https_proxy", "user:word@proxy.example:3128"),
    ],
)
def test_what_may_be_a_secret_stays_behind(name: str, value: str) -> None:
    assert passed_on({name: value}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/home/a@b/bin"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("PIP_INDEX_URL", "https://pypi.example/simple"),
        ("http_proxy", "http://proxy.example:3128"),
        ("NCCL_SOCKET_IFNAME", "eth0"),
    ],
)
def test_where_things_are_is_passed_on(name: str, value: str) -> None:
    assert passed_on({name: value}) == {name: value}

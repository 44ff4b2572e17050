"""Which environment variables a child process is given: what it needs to run, and no key of another service."""

from collections.abc import Mapping, Sequence

# What any program needs: where to find things, and which language.
SYSTEM = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TMPDIR", "TEMP", "TMP",
    "XDG_*", "LD_*", "DYLD_*", "PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "COVERAGE_*",
)  # fmt: skip
# What a process reads that calls endpoints, where their settings say so; a proxy's URL may hold a password.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
# What torch, its accelerators, and the launchers of several nodes read.
COMPUTE = (
    "CUDA_*", "NVIDIA_*", "NCCL_*", "GLOO_*", "ROCM_*", "ROCR_*", "HIP_*", "HSA_*", "ASCEND_*", "XPU_*", "ZE_*",
    "HABANA_*", "TORCH*", "PYTORCH_*", "TRITON_*", "OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*",
    "MALLOC_*",
    "DS_*", "DEEPSPEED_*", "ACCELERATE_*", "TOKENIZERS_PARALLELISM", "VLLM_*", "BITSANDBYTES_*", "BNB_*", "CC", "CXX",
    "MAX_JOBS", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK",
    "GROUP_RANK", "SLURM_*", "PMI_*", "PMIX_*", "OMPI_*", "UCX_*", "FI_*", "IB_*",
    "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ASSETS_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE",
)  # fmt: skip


def pick(environment: Mapping[str, str], *allowed: Sequence[str]) -> dict[str, str]:
    """Return the variables of `environment` that are `allowed`; a name that ends in * stands for all that begin so."""
    names = {name for names in allowed for name in names}
    prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
    return {name: value for name, value in environment.items() if name in names or name.startswith(prefixes)}

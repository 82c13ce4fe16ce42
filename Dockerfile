# The full install for GPU machines: docker build -t cohort . && docker run --gpus all --ipc=host -it cohort
# The devel image has nvcc, which DeepSpeed needs to build its optimisers.
ARG CUDA=13.0.1
FROM nvidia/cuda:${CUDA}-cudnn-devel-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 \
    PATH=/opt/cohort/bin:$PATH
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/cohort

WORKDIR /workspace/cohort
# Dependencies first, so that a change of the code does not install them again. vLLM chooses the
# build of torch, so the CPU pins are not used here.
COPY pyproject.toml LICENSE README.md ./
COPY trainer/__init__.py trainer/__init__.py
RUN pip install ".[vllm,deepspeed,wandb]"

COPY . .
RUN pip install --no-deps -e . && cohort doctor
CMD ["bash"]

# docker build -t segnet .                          for a CPU
# docker build -t segnet --build-arg TORCH=cu130 .  with CUDA 13, for docker run --gpus all
# docker build -t segnet --build-arg TORCH= .       the same from PyPI, where PyTorch's own index is out of reach
# docker run --rm --shm-size=2g -v "$PWD/work:/work" segnet segnet-train experiment=quickstart
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
WORKDIR /source
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore uv==0.13.9 && uv venv --seed /opt/segnet
COPY pyproject.toml README.md LICENSE ./
COPY src/segnet src/segnet
COPY conf conf
COPY template template
COPY requirements.lock ./
# The lock as constraints: the versions that the tests ran with, without what only the tests need.
RUN uv pip install --no-cache --python /opt/segnet ${TORCH:+--torch-backend "$TORCH"} --constraint requirements.lock ".[export]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/segnet /opt/segnet
RUN useradd --create-home --uid 1000 segnet && mkdir /work && chown segnet /work
ENV PATH=/opt/segnet/bin:$PATH NO_ALBUMENTATIONS_UPDATE=1
USER 1000
WORKDIR /work
CMD ["segnet-train", "--help"]

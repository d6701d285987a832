# docker build -t pv-merge:cuda .                                               PyTorch with CUDA, as the package index has it
# docker build -t pv-merge --build-arg TORCH_INDEX=URL .                        URL: PyTorch's index for CPUs
# docker run -it -v "$PWD:/work" pv-merge quickstart
# docker run -it -v "$PWD:/work" -p 7860:7860 pv-merge ui RECIPE --host 0.0.0.0 --no-browser
FROM python:3.11-slim
ARG TORCH_INDEX=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pv_merge pv_merge
COPY trainers trainers
COPY recipes/quickstart recipes/quickstart
RUN pip install --no-cache-dir -c constraints.txt torch ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
    && pip install --no-cache-dir -c constraints.txt '.[ui]' \
    && useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENTRYPOINT ["pv-merge"]
CMD ["--help"]

"""`python src/benchmark.py`: see segnet/benchmark.py and conf/benchmark.yaml."""

from segnet.benchmark import main

if __name__ == "__main__":
    main()

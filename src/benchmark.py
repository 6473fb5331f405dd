"""`python src/benchmark.py`: see segnet/commands/benchmark.py and conf/benchmark.yaml."""

from segnet.commands.benchmark import main

if __name__ == "__main__":
    main()

"""`python src/tune.py`: see segnet/tune.py and conf/tune.yaml."""

from segnet.tune import main

if __name__ == "__main__":
    main()

"""`python src/train.py`: see segnet/train.py and conf/train.yaml."""

from segnet.train import main

if __name__ == "__main__":
    main()

"""`python src/compare.py`: see segnet/compare.py and conf/compare.yaml."""

from segnet.compare import main

if __name__ == "__main__":
    main()

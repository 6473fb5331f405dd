"""`python src/reproduce.py`: see segnet/reproduce.py and conf/reproduce.yaml."""

from segnet.reproduce import main

if __name__ == "__main__":
    main()

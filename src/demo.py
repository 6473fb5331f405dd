"""`python src/demo.py`: see segnet/demo.py and conf/demo.yaml."""

from segnet.demo import main

if __name__ == "__main__":
    main()

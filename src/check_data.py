"""`python src/check_data.py`: see segnet/check_data.py and conf/check_data.yaml."""

from segnet.check_data import main

if __name__ == "__main__":
    main()

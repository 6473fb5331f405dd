"""`python src/export.py`: see segnet/export.py and conf/export.yaml."""

from segnet.export import main

if __name__ == "__main__":
    main()

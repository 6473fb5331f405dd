"""`python src/import_labels.py`: see segnet/commands/import_labels.py and conf/import_labels.yaml."""

from segnet.commands.import_labels import main

if __name__ == "__main__":
    main()

"""What an alert is: schemas, columnar decoding, light-curve arrays, features. Pure."""

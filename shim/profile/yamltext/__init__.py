"""YAML as text: values found again in it, changed so that all else stays byte for byte."""

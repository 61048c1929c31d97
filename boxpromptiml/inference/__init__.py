"""From a trained network and images to probability maps and files."""

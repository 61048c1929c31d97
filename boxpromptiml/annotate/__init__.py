"""The page in the browser: boxes around what looks manipulated, drawn and saved in seconds."""

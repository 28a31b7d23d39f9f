"""The HTML report: gathers a loop's records and makes one self-contained page of them."""

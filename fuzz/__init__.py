"""Coverage-guided fuzzing of what strangers may send; `python -m fuzz --help`.

A target turns bytes into one call of the package.  Anything but an answer or an error of the
package's own is a finding.
"""

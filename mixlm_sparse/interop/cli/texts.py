"""Texts of the command's help."""

from __future__ import annotations

DESCRIPTION = """\
Linear mixed models from the shell: lme4's formulas, lme4's answers.

  mixlm fit data.csv "y ~ x + (1 | group)" --save fit.mixlm
  mixlm predict fit.mixlm new.csv -o predictions.csv

A formula stands in quotes: single ones where it has a backtick or a dollar
sign.
"""
EXIT_CODES = """\
exit codes:
  0  done
  1  the fit has a problem: not converged, interrupted, or a perfect fit
  2  wrong usage or input that cannot be used; the reason is on stderr
"""
FILES = """\
data files are told by the end of the name: .csv, .tsv, .txt (tabs), also with
.gz, .bz2, .xz; .parquet, .feather (need pyarrow).  "-" is CSV on standard
input.  --sep and --decimal say how text files are written, such as --sep ";"
--decimal ",".  Columns of text are factors; columns of numbers that stand for
groups in the fixed part become factors by --factor.
"""
FIT_EXAMPLES = """\
examples:
  mixlm fit sleep.csv "Reaction ~ Days + (Days | Subject)"
  mixlm fit data.parquet "y ~ x + (1 | g)" --ml --tidy out.csv --plot out.png
  mixlm fit data.csv "score ~ year + (1 | school/class)" --factor year \\
    --weights w --save m.mixlm --json out.json
"""
GLS_EXAMPLES = """\
examples:
  mixlm gls fev.csv "FEV1 ~ RACE + SEX + ARMCD * AVISIT" --save mmrm.mixlm \\
    --residual "Unstructured(time=AVISIT, group=USUBJID)" \\
    --variance "VarIdent(by=AVISIT)"
  mixlm gls ovary.csv "follicles ~ x" --residual "AR1(time=day, group=mare)" \\
    --tidy out.csv
"""
STRUCTURES = """\
names of columns, in quotes where they have spaces:
  --residual "AR1(time=visit, group=patient)", or CAR1, Unstructured,
      Toeplitz, AnteDependence; "CompoundSymmetry(group=pen)";
      "Exponential(position=[x, y])" or Gaussian; by=arm gives each arm
      parameters of its own
  --variance "VarIdent(by=visit)", "VarPower(covariate=x)",
      "VarExp(covariate=x)"
"""
EMMEANS_EXAMPLES = """\
examples:
  mixlm emmeans mmrm.mixlm "~ ARMCD | AVISIT"
  mixlm emmeans mmrm.mixlm "pairwise ~ ARMCD | AVISIT" -o differences.csv
  mixlm emmeans fit.mixlm dose --contrast trt.vs.ctrl --ref placebo \\
    --at age=40,60 --by age
"""
COMPARE_EXAMPLES = """\
examples:
  mixlm compare a.mixlm b.mixlm
  mixlm compare data.csv "y ~ x + (1 | g)" "y ~ x + (x | g)" --ml
  mixlm compare a.mixlm b.mixlm --format latex --stars -o table.tex
"""
PREDICT_EXAMPLES = """\
examples:
  mixlm predict fit.mixlm new.csv -o predictions.csv
  mixlm predict fit.mixlm new.csv --interval prediction --level 0.9 \\
    --allow-new-levels
"""
PLAN_EXAMPLES = """\
example:
  mixlm plan data.parquet "y ~ x + (x | subject) + (1 | item)"
"""

POWER_EXAMPLES = """\
examples:
  mixlm power fit.mixlm --effect Days --nsim 500 --seed 1
  mixlm power fit.mixlm --effect Days --beta Days=5 --n 10,20,40
  mixlm power plan.csv "~ x + (1 | g)" --effect x --beta x=0.8 --sd g=0.5 \\
    --sigma 1 --seed 1
"""
SIMULATE_EXAMPLES = """\
examples:
  mixlm simulate fit.mixlm --nsim 10 --seed 1 -o draws.csv
  mixlm simulate plan.csv "~ x + (x | g)" --beta x=0.8 --sd g=0.5,0.2 \\
    --sigma 1 --seed 1
"""
EXPLAIN_EXAMPLES = """\
examples:
  mixlm explain
  mixlm explain singular-fit
"""
COMPILE_EXAMPLES = """\
examples:
  mixlm compile
  NUMBA_CACHE_DIR=/srv/kernels mixlm compile --quiet

Fits compile a kernel when that repays; after this command none of them waits
for it.  The code is kept beside the package, or in the folder that
NUMBA_CACHE_DIR names, for this kind of processor.
"""

## lme4's side of resampling.py: one JSON object with seconds for each task on standard output.
##   Rscript resampling.R SCALE      SCALE in (0, 1]: share of the replicates that are made
suppressPackageStartupMessages({ library(lme4); library(jsonlite) })
scale <- as.numeric(commandArgs(TRUE)[1])
count <- function(n) max(3, round(n * scale))
seconds <- function(expr) as.numeric(system.time(expr, gcFirst = TRUE)[["elapsed"]])
quiet <- function(expr) suppressMessages(suppressWarnings(expr))
out <- list()

small <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
n <- count(1000)
out$boot_sleepstudy <- seconds(quiet(bootMer(small, function(m) c(fixef(m), sigma(m), getME(m, "theta")), nsim = n, seed = 1))) / n
out$simulate_sleepstudy <- seconds(simulate(small, nsim = 1000, seed = 1)) / 1000
Y <- simulate(small, nsim = n, seed = 2)
out$many_sleepstudy <- seconds(quiet(for (i in seq_len(n)) refit(small, Y[[i]]))) / n
if (requireNamespace("pbkrtest", quietly = TRUE)) {
  null <- lmer(Reaction ~ 1 + (Days | Subject), sleepstudy)
  n <- count(200)
  out$pb_sleepstudy <- seconds(quiet(pbkrtest::PBmodcomp(small, null, nsim = n, seed = 1))) / n
}

big <- lmer(y ~ service + (1 | s) + (1 | d), InstEval, control = lmerControl(calc.derivs = FALSE))
set.seed(1)
new <- InstEval[sample(nrow(InstEval), 1e6, replace = TRUE), ]
out$predict_insteval <- seconds(predict(big, newdata = new))
n <- count(20)
y <- simulate(big, nsim = 1, seed = 1)[[1]]
out$boot_insteval <- seconds(quiet(bootMer(big, fixef, nsim = n, seed = 1))) / n
out$warm_insteval <- seconds(quiet(refit(big, y)))
out$versions <- list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4")))
cat(toJSON(out, auto_unbox = TRUE, digits = NA), "\n")

# Tables of lmerTest and pbkrtest that tests/inference/test_anova.py compares with.
# Rscript tests/support/lmertest_tables.R tests/references/data tests/support/lmertest_tables.json
suppressMessages({library(lme4); library(lmerTest); library(jsonlite)})
arguments <- commandArgs(TRUE)
read <- function(name) {
  schema <- fromJSON(file.path(arguments[1], "schema.json"), simplifyVector = FALSE)[[name]]
  D <- read.csv(gzfile(file.path(arguments[1], paste0(name, ".csv.gz"))), check.names = FALSE,
                colClasses = "character", na.strings = "")
  for (column in names(schema$columns)) {
    about <- schema$columns[[column]]
    D[[column]] <- if (about$kind == "factor") factor(D[[column]], levels = unlist(about$levels))
                   else as.numeric(D[[column]])
  }
  D
}
cases <- list(
  list(id = "unbalanced", data = "Arabidopsis", formula = "log(total.fruits + 1) ~ nutrient * amd * status + rack + (1 | popu)", contrasts = NULL),
  list(id = "unbalanced_sum", data = "Arabidopsis", formula = "log(total.fruits + 1) ~ nutrient * amd * status + rack + (1 | popu)", contrasts = "contr.sum"),
  list(id = "unbalanced_helmert", data = "Arabidopsis", formula = "log(total.fruits + 1) ~ nutrient * amd * status + rack + (1 | popu)", contrasts = "contr.helmert"),
  list(id = "missing_cell", data = "Arabidopsis", formula = "log(total.fruits + 1) ~ amd * status + rack * nutrient + (1 | popu)", contrasts = NULL, drop = "amd == 'unclipped' & status == 'Transplant'"),
  list(id = "slopes", data = "Early", formula = "cog ~ tos * trt + (tos | id)", contrasts = NULL),
  list(id = "no_intercept", data = "Arabidopsis", formula = "log(total.fruits + 1) ~ 0 + status + nutrient + amd + (1 | popu)", contrasts = NULL),
  list(id = "covariate", data = "Exam", formula = "normexam ~ standLRT * sex + schgend * standLRT + (1 | school)", contrasts = NULL),
  list(id = "one_factor", data = "Machines", formula = "score ~ Machine + (1 | Worker)", contrasts = NULL))
out <- list()
for (case in cases) {
  D <- read(case$data)
  if (!is.null(case$drop)) D <- D[!with(D, eval(parse(text = case$drop))), ]
  m <- tryCatch(suppressMessages(suppressWarnings({
    f <- as.formula(case$formula)
    fixed_factors <- intersect(all.vars(lme4::nobars(f)), names(Filter(is.factor, D)))
    con <- if (!is.null(case$contrasts)) setNames(rep(list(case$contrasts), length(fixed_factors)), fixed_factors)
    lmerTest::lmer(f, D, contrasts = con, control = lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-10)))
  })), error = function(e) stop(case$id, ": ", conditionMessage(e)))
  rec <- list(data = case$data, formula = case$formula, contrasts = case$contrasts, drop = case$drop, tables = list())
  for (type in c("I", "II", "III")) for (ddf in c("Satterthwaite", "Kenward-Roger")) {
    a <- suppressMessages(suppressWarnings(as.data.frame(anova(m, type = type, ddf = ddf))))
    rec$tables[[length(rec$tables) + 1]] <- list(type = type, ddf = ddf, term = I(rownames(a)), sum_sq = I(a[["Sum Sq"]]),
      num_df = I(a[["NumDF"]]), den_df = I(a[["DenDF"]]), F = I(a[["F value"]]), p = I(a[["Pr(>F)"]]))
  }
  out[[case$id]] <- rec
}
# --- marginal means (lmerTest::ls_means) and Tukey's distribution
means <- list()
for (case in list(
  list(id = "unbalanced", data = "Arabidopsis", formula = "log(total.fruits + 1) ~ nutrient * amd * status + rack + (1 | popu)", which = c("status", "nutrient:amd")),
  list(id = "covariate", data = "Exam", formula = "normexam ~ standLRT * sex + schgend * standLRT + (1 | school)", which = c("schgend", "sex")))) {
  m <- suppressMessages(lmerTest::lmer(as.formula(case$formula), read(case$data), control = lmerControl(optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-10))))
  rec <- list(data = case$data, formula = case$formula, tables = list())
  for (which in case$which) for (ddf in c("Satterthwaite", "Kenward-Roger")) for (pairwise in c(FALSE, TRUE)) {
    a <- as.data.frame(suppressMessages(ls_means(m, which = which, ddf = ddf, pairwise = pairwise)))
    rec$tables[[length(rec$tables) + 1]] <- list(which = which, ddf = ddf, pairwise = pairwise, levels = I(as.character(rownames(a))),
      estimate = I(a[["Estimate"]]), se = I(a[["Std. Error"]]), df = I(a[["df"]]), t = I(a[["t value"]]), lower = I(a[["lower"]]), upper = I(a[["upper"]]), p = I(a[["Pr(>|t|)"]]))
  }
  means[[case$id]] <- rec
}
tukey <- expand.grid(t = c(0.3, 1.7, 3.1), means = c(3, 6), df = c(4, 23.5, Inf))
tukey$p <- ptukey(sqrt(2) * tukey$t, tukey$means, tukey$df, lower.tail = FALSE)
tukey$df[is.infinite(tukey$df)] <- 1e9
writeLines(toJSON(list(anova = out, means = means, tukey = tukey), digits = NA, auto_unbox = TRUE, null = "null"), arguments[2])

## Computes benchmarks/lme4.json: for every model of tests/references/models the criterion where
## lmer's defaults stop and at the best optimum found by tight searches.
##   Rscript benchmarks/reference.R [regular expression on the id]      in the repository
## With an expression only those models are computed again, the others stay as they are stored.
suppressPackageStartupMessages({ library(lme4); library(jsonlite) })
root <- "tests/references"; target <- "benchmarks/lme4.json"
only <- commandArgs(TRUE)
schema <- fromJSON(file.path(root, "data/schema.json"), simplifyDataFrame = FALSE)

read_data <- function(name) {
  file <- file.path(root, "data", paste0(name, ".csv.gz")); columns <- schema[[name]]$columns
  is_factor <- vapply(columns, function(x) x$kind == "factor", NA)
  d <- read.csv(file, na.strings = "", check.names = FALSE,
                colClasses = ifelse(is_factor, "character", NA))
  for (f in names(columns)[is_factor]) d[[f]] <- factor(d[[f]], levels = unlist(columns[[f]]$levels))
  d
}

quietly <- function(expr) suppressMessages(suppressWarnings(expr))

## The lowest criterion of tight searches: NLopt's and minqa's BOBYQA in theta scaled by the size of
## the model-matrix columns (otherwise the result depends on the units of predictors), from the
## default optimum, the identity, a small start and, where a standard deviation came out as zero,
## from small positive ones. Models with thousands of random effects only continue from the default.
tight_optimum <- function(f, m) {
  lower <- getME(m, "lower"); theta <- getME(m, "theta"); best <- list(value = f(theta), theta = theta)
  columns <- unlist(lapply(getME(m, "mmList"), function(X) {
    size <- sqrt(colMeans(X^2)); size[row(diag(length(size)))[lower.tri(diag(length(size)), diag = TRUE)]]
  }))
  scale <- 1 / pmax(columns, 1e-12); g <- function(x) { v <- f(x * scale); if (is.finite(v)) v else 1e300 }
  consider <- function(x) {
    x <- pmax(x, lower); v <- f(x * scale)
    if (is.finite(v) && v < best$value) best <<- list(value = v, theta = x * scale)
  }
  lifted <- ifelse(lower == 0 & theta / scale < 1e-3, .05, theta / scale)
  large <- sum(vapply(m@flist, nlevels, 1L)) > 2000
  starts <- list(theta / scale, as.numeric(lower == 0), .1 * (lower == 0), lifted)
  for (start in starts[if (large) 1 else 1:4]) {
    for (search in c("nloptr", "minqa")) {
      end <- tryCatch(quietly(if (search == "nloptr")
        nloptr::nloptr(start, g, lb = lower, opts = list(algorithm = "NLOPT_LN_BOBYQA", xtol_abs = 1e-10,
                       ftol_abs = 1e-10, xtol_rel = 0, ftol_rel = 0, maxeval = 20000))$solution
      else minqa::bobyqa(start, g, lower = lower, control = list(rhobeg = .05, rhoend = 1e-9, maxfun = 20000))$par),
      error = function(e) NULL)
      if (!is.null(end)) consider(end)
      if (large) break
    }
  }
  again <- tryCatch(minqa::bobyqa(best$theta / scale, g, lower = lower,
             control = list(rhobeg = if (large) 1e-4 else 1e-3, rhoend = if (large) 1e-7 else 1e-10, maxfun = if (large) 300 else 20000))$par, error = function(e) NULL)
  if (!is.null(again)) consider(again)
  best
}

one <- function(id) {
  record <- fromJSON(file.path(root, "models", paste0(id, ".json")), simplifyDataFrame = FALSE)
  D <- read_data(sub("[.]csv[.]gz$", "", basename(record$data)))
  cl <- quote(lmer(form, D, REML = REML)); form <- as.formula(record$formula); REML <- record$REML
  for (a in c("weights", "offset")) if (!is.null(record[[a]])) cl[[a]] <- as.name(record[[a]])
  if (length(record$contrasts)) cl$contrasts <- as.list(record$contrasts)
  start <- Sys.time(); m <- quietly(eval(cl)); seconds <- as.numeric(difftime(Sys.time(), start, units = "secs"))
  cl$devFunOnly <- TRUE; best <- tight_optimum(quietly(eval(cl)), m)
  default <- as.numeric(if (REML) REMLcrit(m) else deviance(m))
  cat(sprintf("%-26s %.6f  default %+.2e  %.2f s\n", id, best$value, default - best$value, seconds))
  list(criterion = best$value, theta = I(best$theta), default_criterion = default,
       default_seconds = seconds, singular = isSingular(m), fixef = as.list(fixef(m)))
}

ids <- sub("[.]json$", "", list.files(file.path(root, "models"), "[.]json$"))
stored <- if (file.exists(target)) fromJSON(target, simplifyVector = FALSE)$models else list()
for (id in if (length(only)) grep(only[1], ids, value = TRUE) else ids) stored[[id]] <- one(id)
versions <- list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4")),
                 nloptr = as.character(packageVersion("nloptr")), minqa = as.character(packageVersion("minqa")))
write_json(list(versions = versions, models = stored[sort(names(stored), method = "radix")]), target,
           auto_unbox = TRUE, digits = NA, pretty = 1)

## The process of lme4: loads data and fits when it is told to; the counterpart of worker.py.
##   Rscript lme4_worker.R OPTIONS_AS_JSON
## One JSON command a line on standard input, one answer a line that starts with "@bench ".
suppressPackageStartupMessages({ library(lme4); library(jsonlite) })
options <- fromJSON(commandArgs(TRUE)[1])

answer <- function(...) {
  cat("@bench ", toJSON(list(...), auto_unbox = TRUE, digits = NA, null = "null", na = "null"), "\n", sep = "")
  flush(stdout())
}

read_data <- function(job) {
  factors <- names(job$factors)
  d <- if (grepl("[.]gz$", job$csv) || !requireNamespace("data.table", quietly = TRUE)) {
    first <- names(read.csv(job$csv, nrows = 1, check.names = FALSE))
    classes <- ifelse(first %in% factors, "character", NA)
    read.csv(job$csv, na.strings = "", check.names = FALSE, colClasses = classes)
  } else {
    data.table::fread(job$csv, na.strings = "", colClasses = list(character = factors), data.table = FALSE)
  }
  for (f in factors) {
    levels <- unlist(job$factors[[f]])
    d[[f]] <- if (is.null(levels)) factor(d[[f]]) else factor(d[[f]], levels = levels)
  }
  d
}

## Peak of resident memory, as worker.py measures it.
status <- function(field) {
  if (!file.exists("/proc/self/status")) return(NA_real_)
  line <- grep(paste0("^", field, ":"), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) / 1024
}
reset_peak <- function() {
  invisible(gc())
  if (file.exists("/proc/self/clear_refs")) cat("5", file = "/proc/self/clear_refs")
  status("VmRSS")
}

## The call as a user writes it, evaluated where the data are: an inlined data frame would be
## deparsed into the fit.
the_call <- function(job) {
  cl <- quote(lmer(model_formula, D, REML = REML, control = control))
  for (a in c("weights", "offset")) if (!is.null(job[[a]])) cl[[a]] <- as.name(job[[a]])
  if (length(job$contrasts)) cl$contrasts <- as.list(job$contrasts)
  cl
}

answer(ready = TRUE, versions = list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4"))))
input <- file("stdin", "r")
where <- new.env(); cl <- NULL; baseline <- NA
while (length(line <- readLines(input, n = 1))) {
  command <- fromJSON(line, simplifyDataFrame = FALSE)
  tryCatch({
    if (command$do == "load") {
      job <- command$job
      where$D <- NULL; where$D <- read_data(job)
      where$REML <- job$reml
      where$model_formula <- as.formula(job$formula, env = where)
      where$control <- if (identical(options$calc_derivs, FALSE)) lmerControl(calc.derivs = FALSE) else lmerControl()
      cl <- the_call(job)
      baseline <- reset_peak()
      answer(loaded = TRUE, rows = nrow(where$D))
    } else if (command$do == "evaluate") {
      dev <- cl; dev$devFunOnly <- TRUE; f <- suppressMessages(eval(dev, where))
      ## A second theta, so that nothing kept from the call before can be used.
      theta <- list(as.numeric(command$theta), 1.01 * as.numeric(command$theta)); times <- NULL
      while (is.null(times) || sum(times) < command$at_least) for (t in theta) {
        start <- Sys.time(); value <- f(t)
        times <- c(times, as.numeric(difftime(Sys.time(), start, units = "secs")))
      }
      answer(evaluation_seconds = median(times), criterion = f(theta[[1]]))
    } else {
      invisible(gc()); times <- NULL
      while (is.null(times) || sum(times) < command$at_least) {
        start <- Sys.time()
        m <- suppressMessages(suppressWarnings(eval(cl, where)))
        b <- fixef(m)
        times <- c(times, as.numeric(difftime(Sys.time(), start, units = "secs")))
      }
      answer(seconds = median(times), calls = length(times), criterion = as.numeric(if (isREML(m)) REMLcrit(m) else deviance(m)),
             coefficients = unname(b), note = "", megabytes = max(0, status("VmHWM") - baseline))
      rm(m)
    }
  }, error = function(e) answer(error = conditionMessage(e)))
}

## R's side of inference.py: fits a model, then does one task with it, when it is told to.
##   Rscript inference.R
## One JSON command a line on standard input, one answer a line that starts with "@bench ".
suppressPackageStartupMessages({ library(lme4); library(jsonlite) })
has <- function(package) requireNamespace(package, quietly = TRUE)
quiet <- function(expr) suppressMessages(suppressWarnings(expr))
answer <- function(...) {
  cat("@bench ", toJSON(list(...), auto_unbox = TRUE, digits = NA, null = "null", na = "null"), "\n", sep = "")
  flush(stdout())
}

## Peak of resident memory, as worker.py measures it; the fit counts, the data do not.
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

## Numbers to be compared, by column and by label, as inference.py writes them.
labelled <- function(values, labels) as.list(setNames(as.numeric(values), labels))

## A task starts from lme4's fit. `needs` are packages besides lme4; `tight` asks for a fit with tight
## tolerances, so that numbers can be compared: that fit is not on the clock, and these tasks fit nothing
## again. The others refit, and do so with lmer's defaults.
satterthwaite <- list(needs = "lmerTest", tight = TRUE,
  work = function(m) {
    x <- lmerTest::as_lmerModLmerTest(m)
    list(coefficients = as.data.frame(summary(x)$coefficients), terms = as.data.frame(anova(x, type = "III")))
  },
  numbers = function(m, found) list(
    df = labelled(found$coefficients[["df"]], rownames(found$coefficients)),
    p = labelled(found$coefficients[["Pr(>|t|)"]], rownames(found$coefficients)),
    `anova df` = labelled(found$terms[["DenDF"]], rownames(found$terms)),
    `anova F` = labelled(found$terms[["F value"]], rownames(found$terms)),
    `anova p` = labelled(found$terms[["Pr(>F)"]], rownames(found$terms))))

kenward_roger <- list(needs = "pbkrtest", tight = TRUE,
  work = function(m) {
    adjusted <- pbkrtest::vcovAdj(m)
    V <- vcov(m)
    se <- sqrt(diag(as.matrix(adjusted)))
    df <- vapply(seq_along(se), function(i) pbkrtest::Lb_ddf(diag(length(se))[i, ], V, adjusted), 0)
    list(se = se, df = df, p = 2 * pt(-abs(fixef(m) / se), df))
  },
  numbers = function(m, found) list(
    se = labelled(found$se, names(fixef(m))), df = labelled(found$df, names(fixef(m))),
    p = labelled(found$p, names(fixef(m)))))

profiles <- list(needs = NULL, tight = FALSE,
  work = function(m) confint(m, method = "profile", oldNames = FALSE, quiet = TRUE),
  numbers = function(m, found) list(lower = labelled(found[, 1], rownames(found)), upper = labelled(found[, 2], rownames(found))))

## lme4 gives no standard errors of variance components; lmerTest has the covariance of (theta, sigma).
components <- list(needs = c("lmerTest", "numDeriv"), tight = TRUE,
  work = function(m) {
    V <- lmerTest::as_lmerModLmerTest(m)@vcov_varpar
    widths <- lengths(m@cnms)
    k <- length(getME(m, "theta"))
    J <- numDeriv::jacobian(function(x) as.numeric(Cv_to_Sv(x[seq_len(k)], n = widths, s = x[k + 1])), c(getME(m, "theta"), sigma(m)))
    sqrt(diag(J %*% V %*% t(J)))
  },
  numbers = function(m, found) list(se = labelled(found, c(lme4:::tnames(m, prefix = c("sd", "cor"), old = FALSE), "sigma"))))

random_terms <- list(needs = "lmerTest", tight = FALSE,
  work = function(m) as.data.frame(lmerTest::ranova(m)),
  numbers = function(m, found) list(
    LRT = labelled(found[["LRT"]], rownames(found)), p = labelled(found[["Pr(>Chisq)"]], rownames(found))))

drop1_F <- list(needs = "lmerTest", tight = TRUE,
  work = function(m) as.data.frame(drop1(lmerTest::as_lmerModLmerTest(m))),
  numbers = function(m, found) list(
    df = labelled(found[["DenDF"]], rownames(found)), F = labelled(found[["F value"]], rownames(found)),
    p = labelled(found[["Pr(>F)"]], rownames(found))))

drop1_lrt <- list(needs = NULL, tight = FALSE,
  work = function(m) as.data.frame(drop1(m, test = "Chisq")),
  numbers = function(m, found) list(
    LRT = labelled(found[["LRT"]], rownames(found)), p = labelled(found[[ncol(found)]], rownames(found))))

steps <- list(needs = "lmerTest", tight = FALSE,
  work = function(m) lmerTest::step(lmerTest::as_lmerModLmerTest(m)),
  numbers = function(m, found) {
    random <- as.data.frame(found$random); fixed <- as.data.frame(found$fixed)
    list(eliminated = labelled(fixed[["Eliminated"]], rownames(fixed)),
         LRT = labelled(random[["LRT"]], rownames(random)), df = labelled(fixed[["DenDF"]], rownames(fixed)),
         p = labelled(fixed[["Pr(>F)"]], rownames(fixed)))
  })

means <- if (has("emmeans")) list(needs = c("emmeans", "lmerTest"), tight = TRUE, with = "emmeans",
  work = function(m) {
    x <- lmerTest::as_lmerModLmerTest(m)
    e <- emmeans::emmeans(x, "recipe", lmer.df = "satterthwaite")
    list(means = as.data.frame(summary(e)), pairs = as.data.frame(summary(pairs(e, adjust = "none"))))
  },
  numbers = function(m, found) list(
    lower = labelled(found$means$lower.CL, found$means$recipe), upper = labelled(found$means$upper.CL, found$means$recipe),
    df = labelled(found$means$df, found$means$recipe), p = labelled(found$pairs$p.value, found$pairs$contrast))) else
list(needs = "lmerTest", tight = TRUE, with = "lmerTest::ls_means",
  work = function(m) {
    x <- lmerTest::as_lmerModLmerTest(m)
    list(means = as.data.frame(lmerTest::ls_means(x, which = "recipe")),
         pairs = as.data.frame(lmerTest::ls_means(x, which = "recipe", pairwise = TRUE)))
  },
  numbers = function(m, found) {
    levels <- sub("^recipe", "", rownames(found$means))
    contrasts <- gsub("recipe", "", rownames(found$pairs))
    list(lower = labelled(found$means$lower, levels), upper = labelled(found$means$upper, levels),
         df = labelled(found$means$df, levels), p = labelled(found$pairs[["Pr(>|t|)"]], contrasts))
  })

robust <- list(needs = "clubSandwich", tight = TRUE,
  work = function(m) as.data.frame(clubSandwich::coef_test(m, vcov = "CR2", test = "Satterthwaite")),
  numbers = function(m, found) {
    column <- function(pattern) labelled(found[[grep(pattern, names(found))[1]]], names(fixef(m)))
    list(se = column("^SE"), df = column("^df"), p = column("^p"))
  })

influences <- list(needs = NULL, tight = FALSE,
  work = function(m) influence(m, groups = names(getME(m, "flist"))[1]),
  numbers = function(m, found) {
    beta <- found[[grep("^fixed.effects\\[-", names(found))]]
    out <- lapply(seq_len(ncol(beta)), function(j) labelled(beta[, j], rownames(beta)))
    setNames(out, paste("without group:", colnames(beta)))
  })

tasks <- list(
  satterthwaite = satterthwaite, kenward_roger = kenward_roger, profile = profiles, components = components,
  ranova = random_terms, drop1_F = drop1_F, drop1_lrt = drop1_lrt, step = steps, means = means, robust = robust,
  influence = influences)

packages <- Filter(has, c("lme4", "lmerTest", "pbkrtest", "emmeans", "clubSandwich"))
versions <- c(list(R = as.character(getRversion())), lapply(setNames(nm = packages), function(p) as.character(packageVersion(p))))
answer(versions = versions)

## Everything that a fit's call names is global: update() and drop1() evaluate it again.
default <- lmerControl()
tight <- lmerControl(optimizer = "bobyqa", calc.derivs = FALSE, optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
m <- NULL; baseline <- NA
read_data <- function(model) {
  first <- names(read.csv(model$csv, nrows = 1, check.names = FALSE))
  d <- read.csv(model$csv, check.names = FALSE, colClasses = ifelse(first %in% names(model$factors), "character", NA))
  for (f in names(model$factors)) d[[f]] <- factor(d[[f]], levels = unlist(model$factors[[f]]))
  d
}
now <- function() as.numeric(Sys.time())

input <- file("stdin", "r")
while (length(line <- readLines(input, n = 1))) {
  command <- fromJSON(line, simplifyDataFrame = FALSE)
  tryCatch({
    task <- tasks[[command$task]]
    missing <- Filter(Negate(has), task$needs)
    if (length(missing)) {
      answer(missing = paste(missing, collapse = ", "))
    } else if (command$do == "fit") {
      m <- NULL
      D <- read_data(command$model)
      cl <- substitute(lme4::lmer(f, D, control = k), list(f = as.formula(command$model$formula), k = as.name(if (task$tight) "tight" else "default")))
      baseline <- reset_peak()
      m <- quiet(eval(cl, globalenv()))
      answer(fitted = TRUE)
    } else {
      times <- NULL
      repeat {
        start <- now(); found <- quiet(task$work(m)); times <- c(times, now() - start)
        if (sum(times) >= command$at_least || length(times) >= command$at_most) break
      }
      peak <- max(0, status("VmHWM") - baseline)
      answer(seconds = times, megabytes = peak, numbers = task$numbers(m, found),
             with = if (is.null(task$with)) "" else task$with)
    }
  }, error = function(e) answer(error = conditionMessage(e)))
}

# Writes clubsandwich.json: cluster-robust standard errors and Satterthwaite df of clubSandwich.
# Rscript tests/support/clubsandwich.R, in the root of the repository; needs lme4, clubSandwich, jsonlite.
suppressMessages({library(lme4); library(clubSandwich); library(jsonlite)})
schema <- fromJSON("tests/references/data/schema.json", simplifyVector = FALSE)
read <- function(name) {
  d <- read.csv(gzfile(sprintf("tests/references/data/%s.csv.gz", name)), na.strings = "",
                colClasses = "character")
  for (column in names(schema[[name]]$columns)) {
    about <- schema[[name]]$columns[[column]]
    d[[column]] <- if (about$kind == "factor")
      factor(d[[column]], levels = unlist(about$levels)) else as.numeric(d[[column]])
  }
  d
}
ids <- c("sleep_rs_reml", "ortho_rs_reml", "pastes_nested_reml", "exam_rs_ml", "hsb_full_reml",
         "bdf_rs_reml")
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                     check.conv.grad = "ignore")
out <- lapply(ids, function(id) {
  record <- fromJSON(sprintf("tests/references/models/%s.json", id), simplifyVector = FALSE)
  name <- sub("\\.csv\\.gz$", "", sub("^data/", "", record$data))
  fit <- lmer(as.formula(record$formula), read(name), REML = record$REML, control = tight)
  types <- lapply(c(CR0 = "CR0", CR1 = "CR1", CR2 = "CR2"), function(type) {
    test <- coef_test(fit, vcov = type, test = "Satterthwaite")
    list(se = I(test$SE), df = I(test$df))
  })
  list(id = id, names = I(names(fixef(fit))), types = types)
})
write(toJSON(out, digits = NA, auto_unbox = TRUE, pretty = TRUE), "tests/support/clubsandwich.json")

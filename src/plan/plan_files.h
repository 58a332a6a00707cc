/* plan/plan_files.h - where the planner's data files are, and how one is read. */
#ifndef HEADWAY_PLAN_FILES_H
#define HEADWAY_PLAN_FILES_H

#include "base/option.h"

/* Finds `name`: a path, or a file of that name (with .yaml, when it has no ending) in `folder`
 * of the working directory, then of the installation. ERR_CONFIG when there is none. */
int plan_file_find(char *path, i64 capacity, const char *folder, const char *name);

/* Names of the *.yaml files in `folder`, without the ending, sorted: of the first of the same
 * places that has it. */
int plan_file_names(const char *folder, const char ***names, i64 *n, struct arena *a);

/* Reads such a YAML file by one table. */
int plan_file_load(void *out, const struct option *table, const char *folder, const char *name,
                   struct arena *a);

#endif

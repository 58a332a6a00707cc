/* parallel/agree.h - do all ranks run the same thing?
 *
 * Ranks that were started with another program, command line, recipe or data would train on,
 * wrongly. So each says a list of facts about itself before the first step, and all of them find
 * the same first one that differs, by name, with the rank that is odd. */
#ifndef HEADWAY_AGREE_H
#define HEADWAY_AGREE_H

#include "base/recipe.h"
#include "parallel/mesh.h"

enum { FACT_NAME = 48, FACT_VALUE = 64 };

struct fact {
    char name[FACT_NAME];   /* "backend", "train.batch" */
    char value[FACT_VALUE]; /* as people read it; long ones end with a hash of the whole */
};

struct facts {
    struct fact *at;
    i64 n;
    struct arena *arena;
};

void facts_init(struct facts *f, struct arena *a);
void facts_add(struct facts *f, const char *name, const char *value);
/* The program that runs: its version and the SHA-256 of its file. */
void facts_add_program(struct facts *f);
/* Every setting of a recipe with its value. */
void facts_add_recipe(struct facts *f, const struct recipe *r);

/* Called by all ranks. ERR_CONFIG on every one of them, with the same sentence, when they
 * differ. `where` says what the facts are about ("the recipe"). */
int mesh_same(const struct mesh *m, const struct facts *f, const char *where);

/* Called by all ranks with how each one's own beginning went: rc, and err_message() where it is
 * negative. OK when all went well. Otherwise one code and one sentence on every rank, of the lowest
 * that failed; it is named unless all say the same. Then the ranks may end without each other. */
int mesh_all_well(const struct mesh *m, int rc, struct arena *a);

/* The judgement alone: values[rank] of one fact. The odd rank, or -1: all are equal. The value
 * that most ranks have counts as right; of equally many, the lowest rank's. *usual is a
 * rank that has it. */
int odd_one(const struct fact *const *values, int ranks, int *usual);

#endif

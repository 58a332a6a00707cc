/* tests/plan/plan_job.h - a job to price: a model on the machine that a line describes. */
#ifndef HEADWAY_TEST_PLAN_JOB_H
#define HEADWAY_TEST_PLAN_JOB_H

#include "plan/cost.h"
#include "plan/efficiency.h"
#include "plan/machine_file.h"
#include "plan/stack.h"
#include "test.h"

struct planned {
    struct arena arena;
    struct model_spec spec;
    struct plan_machine machine;
    struct plan_family family;
    struct plan_stack stack;
    struct plan_job job;
};

static void open_planned(struct planned *p, const char *model, const char *machine, i64 devices,
                         i64 rows, i64 sequence)
{
    memset(p, 0, sizeof *p);
    arena_init(&p->arena);
    CHECK_OK(spec_load(&p->spec, model, &p->arena));
    CHECK_OK(plan_machine_load(&p->machine, machine, &p->arena));
    CHECK_OK(plan_family_load(&p->family, "h100", &p->arena));
    CHECK_OK(plan_stack_load(&p->stack, "megatron-lm", &p->arena));
    p->job = (struct plan_job){ .spec = &p->spec, .sequence = sequence, .global_batch = rows,
                                .dtype = PLAN_BF16, .machine = &p->machine,
                                .family = &p->family, .stack = &p->stack, .devices = devices,
                                .any = true };
}

#endif

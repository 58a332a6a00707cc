/* plan/table.h - operators priced: the step from mathematics to seconds.
 *
 * plan_table_new (cost.h) reads operators and prices them at once. Who prices the same operators
 * again and again, with other constants (a fit), keeps them and calls plan_table_price. */
#ifndef HEADWAY_PLAN_TABLE_H
#define HEADWAY_PLAN_TABLE_H

#include "plan/layer_costs.h"

/* The operators of a job at these degrees, with the head padded as its stack does. */
int plan_table_ops(struct plan_ops *out, const struct plan_job *job,
                   const struct plan_layout *layout);
void plan_table_price(struct plan_table *out, const struct plan_job *job,
                      const struct plan_layout *layout, const struct plan_ops *ops);

#endif

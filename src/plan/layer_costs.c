#include "plan/layer_costs.h"

#include "base/err.h"
#include "ops/ops.h"
#include "parallel/mesh.h"
#include "train/step.h"

#include <string.h>

enum { BY_PRODUCTS = 1, BY_OTHERS = 2 }; /* who reads a tensor in the backward pass */

struct reading {
    struct plan_ops *out;
    const struct model_spec *spec; /* of the described model */
    const struct program *program;
    int *kept; /* by tensor index: of these; 0: not kept, or counted */
};

/* The model with one layer of each kind that it has, as much of the experts as a rank has. */
static struct model_spec small_spec(const struct model_spec *s, const struct plan_shape *shape)
{
    struct model_spec small = *s; /* neighbours along tp share key-value heads as they do in training */
    bool dense = s->experts == 0 || s->dense_layers > 0;
    small.dense_layers = dense ? 1 : 0;
    small.layers = dense + (s->experts > 0);
    small.tied = false;
    small.positions = i64_max(s->positions, shape->sequence);
    return small;
}

static enum plan_part part_of(const struct reading *r, int layer, bool embeds)
{
    if (layer < 0)
        return embeds ? PLAN_EMBEDDING : PLAN_HEAD;
    return spec_is_sparse(r->spec, layer) ? PLAN_SPARSE : PLAN_DENSE;
}

static bool embeds(const struct task *t)
{
    return t->op == &op_embed || t->op == &op_embed_grad;
}

/* --- products ------------------------------------------------------------------------- */

static bool is_attention(const struct op_info *op)
{
    return op == &op_attention || op == &op_attention_grad || op == &op_attention_block ||
           op == &op_attention_block_grad;
}

static bool is_of_experts(const struct op_info *op)
{
    return op == &op_expert_linear || op == &op_expert_linear_dx || op == &op_expert_linear_dw;
}

static void shape_of(const struct task *t, const struct reading *r, struct plan_op *op)
{
    bool experts = is_of_experts(t->op);
    i64 E = experts ? r->spec->experts : 1;
    i64 rows = t->in[0]->dim[0];
    op->batch = E;
    if (experts)
        op->expert_bytes = (double)tensor_bytes(t->op == &op_expert_linear_dw ? t->out[0] : t->in[1]);
    if (experts && t->attr[EXPERT_ROWS] > 0)
        rows = (i64)t->attr[EXPERT_ROWS];
    if (t->op == &op_linear_dw || t->op == &op_expert_linear_dw) {
        op->M = t->in[0]->dim[1];
        op->N = t->in[1]->dim[1];
        op->K = ceil_div(rows, E);
        return;
    }
    op->M = ceil_div(rows, E);
    op->K = t->in[0]->dim[1];
    op->N = t->out[0]->dim[1];
}

static bool is_product(const struct op_info *op)
{
    return op == &op_linear || op == &op_linear_dx || op == &op_linear_dw || is_of_experts(op);
}

/* --- operators ------------------------------------------------------------------------ */

/* The chunk of the head, or the turn of a ring, that it is a part of so far. */
static struct plan_op *find_op(struct plan_piece_ops *p, const struct task *t,
                               const struct plan_op *like)
{
    bool turns = like->kind == PLAN_ATTENTION || t->op == &op_add;
    for (int i = 0; (t->head || turns) && i < p->n; i++)
        if (!strcmp(p->ops[i].name, like->name) && p->ops[i].phase == like->phase &&
            p->ops[i].kind == like->kind)
            return &p->ops[i];
    return NULL;
}

static bool works_on_cut_rows(const struct reading *r, const struct task *t)
{
    const struct tensor *x = t->in[0] ? t->in[0] : t->out[0];
    return r->out->shape.tp > 1 && x && !t->head && tensor_rows(x) * r->out->shape.tp == r->out->rows;
}

/* --- what ranks along tp exchange for products ------------------------------------------ */

static const struct tensor *root(const struct tensor *t)
{
    return t && t->owner ? t->owner : t;
}

static bool is_gather_of_rows(const struct task *t)
{
    return t->lane == LANE_TP && t->op == &op_all_gather && t->phase == PHASE_FORWARD &&
           !collective_of_heads(t);
}

static bool is_gathered(const struct reading *r, const struct tensor *rows)
{
    for (i64 id = 0; id < r->program->n_tasks; id++)
        if (is_gather_of_rows(r->program->by_id[id]) &&
            root(r->program->by_id[id]->out[0]) == root(rows))
            return true;
    return false;
}

static bool is_sum_of_rows(const struct task *t)
{
    return t->lane == LANE_TP && t->op == &op_reduce_scatter && t->phase != PHASE_FORWARD &&
           !collective_of_heads(t);
}

/* Sums what a product left in parts: the gradient of its rows. */
static bool is_sum_of_products(const struct reading *r, const struct task *t)
{
    if (!is_sum_of_rows(t))
        return false;
    for (i64 id = 0; id < r->program->n_tasks; id++) {
        const struct task *by = r->program->by_id[id];
        if ((by->op == &op_linear_dx || by->op == &op_expert_linear_dx) && root(by->out[0]) == root(t->in[0]))
            return true;
    }
    return false;
}

static bool is_summed(const struct reading *r, const struct tensor *gradient)
{
    for (i64 id = 0; id < r->program->n_tasks; id++) {
        const struct task *t = r->program->by_id[id];
        if (is_sum_of_rows(t) && root(t->in[0]) == root(gradient))
            return true;
    }
    return false;
}

static bool is_of_gathered(const struct reading *r, const struct task *t)
{
    if (t->op == &op_linear_dw)
        return is_gathered(r, t->in[1]);
    return t->op == &op_linear_dx && is_summed(r, t->out[0]);
}

/* A product forward of which each rank along tp has a part, to be summed. */
static bool is_of_summed(const struct reading *r, const struct task *t)
{
    for (i64 id = 0; t->op == &op_linear && id < r->program->n_tasks; id++) {
        const struct task *sum = r->program->by_id[id];
        if (sum->lane == LANE_TP && sum->op == &op_reduce_scatter && sum->phase == PHASE_FORWARD &&
            root(sum->in[0]) == root(t->out[0]))
            return true;
    }
    return false;
}

static struct plan_op describe(const struct reading *r, const struct task *t)
{
    struct plan_op op = {
        .name = t->op->name, .phase = t->phase, .tasks = 1, .model_flops = t->cost.model_flops,
        .flops = t->cost.flops, .bytes = t->cost.read_bytes + t->cost.written_bytes,
        .kind = is_attention(t->op) ? PLAN_ATTENTION : PLAN_TRAFFIC,
        .cut_rows = works_on_cut_rows(r, t), .of_gathered = is_of_gathered(r, t),
        .of_summed = is_of_summed(r, t),
    };
    if (is_product(t->op)) {
        op.kind = PLAN_PRODUCT;
        shape_of(t, r, &op);
    }
    return op;
}

static int add_op(struct plan_piece_ops *p, const struct task *t, const struct plan_op *op)
{
    struct plan_op *same = find_op(p, t, op);
    if (!same) {
        if (p->n == PLAN_PIECE_OPS)
            return err_set(ERR_INTERNAL, "a layer has more than %d operators", PLAN_PIECE_OPS);
        p->ops[p->n++] = *op;
        return OK;
    }
    if (op->phase == PHASE_WEIGHT_GRAD)
        same->K += op->K;
    else
        same->M += op->M;
    same->tasks += 1;
    same->model_flops += op->model_flops;
    same->flops += op->flops;
    same->bytes += op->bytes;
    return OK;
}

/* Chunks of the head are one exchange. */
static void count_message(struct plan_messages *m, const struct task *t)
{
    m->bytes += t->cost.message_bytes;
    m->half_bytes += t->cost.message_bytes * 2 / (double)dtype_bytes(t->in[0]->dtype);
    m->calls += t->head && t->chunk > 0 ? 0 : 1;
}

static void add_message(const struct reading *r, struct plan_piece_ops *p, const struct task *t)
{
    const bool heads = collective_of_heads(t);
    struct plan_messages *m = heads ? p->heads : t->lane == LANE_TP ? p->tp
                                             : t->lane == LANE_CP ? p->cp : NULL;
    if (!m)
        return;
    count_message(m + (t->phase != PHASE_FORWARD), t);
    if (is_gather_of_rows(t)) {
        p->gathered_bytes += (double)tensor_bytes(t->out[0]);
        count_message(&p->gathered, t);
    }
    if (is_sum_of_products(r, t))
        count_message(&p->summed, t);
}

static int read_tasks(struct reading *r)
{
    const struct program *p = r->program;
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *t = p->by_id[id];
        struct plan_piece_ops *piece = &r->out->pieces[part_of(r, t->layer, embeds(t))];
        if (t->phase == PHASE_UPDATE || t->op->waits || t->first_turn || t->last_turn)
            continue;
        if (t->lane != LANE_COMPUTE) {
            add_message(r, piece, t);
            continue;
        }
        struct plan_op op = describe(r, t);
        TRY(add_op(piece, t, &op));
    }
    return OK;
}

/* --- what stays between the passes ---------------------------------------------------- */

/* What ranks gathered can be gathered again: what it was made from is kept. */
static const struct tensor *source_of(const struct reading *r, const struct tensor *t)
{
    for (i64 id = 0; id < r->program->n_tasks; id++) {
        const struct task *by = r->program->by_id[id];
        if (by->op == &op_all_gather && by->phase == PHASE_FORWARD && root(by->out[0]) == t)
            return root(by->in[0]);
    }
    return t;
}

static bool is_kept(const struct reading *r, const struct task *by, const struct tensor *t)
{
    return t && t->role == ROLE_ACTIVATION && t->index >= 0 && r->kept[t->index] &&
           !embeds(by) && !by->head;
}

static int reader(const struct task *t)
{
    bool rows = t->op == &op_linear_dw || t->op == &op_expert_linear_dw;
    return rows ? BY_PRODUCTS : BY_OTHERS;
}

static void count_kept(struct reading *r, struct arena *a)
{
    const struct program *p = r->program;
    r->kept = ARENA_ARRAY(a, int, p->n_tensors + 1);
    for (i64 id = 0; id < p->n_tasks; id++)
        for (int k = 0; k < TASK_INS && p->by_id[id]->phase != PHASE_UPDATE; k++) {
            const struct tensor *t = root(p->by_id[id]->in[k]);
            if (t && p->by_id[id]->phase != PHASE_FORWARD && t->role == ROLE_ACTIVATION) {
                t = source_of(r, t);
                if (t->index >= 0)
                    r->kept[t->index] |= reader(p->by_id[id]);
            }
        }
    for (i64 id = 0; id < p->n_tasks; id++) {
        const struct task *by = p->by_id[id];
        struct plan_piece_ops *piece = &r->out->pieces[part_of(r, by->layer, embeds(by))];
        for (int k = 0; k < TASK_OUTS && by->phase == PHASE_FORWARD; k++) {
            const struct tensor *t = root(by->out[k]);
            if (!is_kept(r, by, t))
                continue;
            piece->kept_bytes += (double)tensor_bytes(t);
            if (r->kept[t->index] & BY_PRODUCTS)
                piece->kept_as_rows[r->kept[t->index] > BY_PRODUCTS] += (double)tensor_bytes(t);
            if (by->op == &op_expert_gather)
                piece->kept_for_experts += (double)tensor_bytes(t);
            r->kept[t->index] = 0;
            if (r->out->shape.tp > 1 && tensor_rows(t) * r->out->shape.tp == r->out->rows)
                piece->kept_cut_bytes += (double)tensor_bytes(t);
        }
    }
}

/* --- parameters ----------------------------------------------------------------------- */

static void count_parameters(struct reading *r, const struct model *m)
{
    for (i64 i = 0; i < m->n_params; i++) {
        const struct param *p = &m->params[i];
        bool table = p->desc.id == P_WTE || p->desc.id == P_WPE;
        struct plan_piece_ops *piece = &r->out->pieces[part_of(r, p->desc.layer, table)];
        double n = (double)param_here(p);
        if (param_is_expert(&p->desc))
            piece->expert_parameters += n;
        else
            piece->parameters += n;
        if (p->desc.rank == 2 && !param_is_expert(&p->desc))
            piece->matrices += n;
    }
}

/* --- one more token ------------------------------------------------------------------- */

static const struct plan_op *op_named(const struct plan_piece_ops *p, const char *name,
                                      enum phase phase)
{
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->ops[i].name, name) && p->ops[i].phase == phase)
            return &p->ops[i];
    return NULL;
}

/* A row and the embedding of the token behind it, each through a norm, are projected from twice the
 * width to the width. tp cuts what the projection gives; norms are the first of a block's. */
static void read_mtp(struct plan_ops *out, const struct model_spec *spec)
{
    const struct plan_piece_ops *block = &out->pieces[spec->experts > 0 ? PLAN_SPARSE : PLAN_DENSE];
    struct plan_piece_ops *p = &out->pieces[PLAN_MTP];
    const i64 rows = out->rows, in = 2 * spec->width, columns = spec->width / out->shape.tp;
    const double flops = 2 * (double)rows * (double)in * (double)columns;
    const double bytes = (double)dtype_bytes(out->shape.dtype);
    const double moved = bytes * (double)(rows * in + rows * columns + in * columns);
    const struct { const char *name; enum phase phase; i64 M, N, K; } products[] = {
        { "linear", PHASE_FORWARD, rows, columns, in },
        { "linear_dx", PHASE_INPUT_GRAD, rows, in, columns },
        { "linear_dw", PHASE_WEIGHT_GRAD, columns, in, rows },
    };
    const struct plan_op *norms[] = { op_named(block, "rmsnorm", PHASE_FORWARD),
                                      op_named(block, "rmsnorm_grad", PHASE_INPUT_GRAD) };
    for (i64 i = 0; i < COUNT_OF(products); i++)
        p->ops[p->n++] = (struct plan_op){
            .name = products[i].name, .kind = PLAN_PRODUCT, .phase = products[i].phase,
            .M = products[i].M, .N = products[i].N, .K = products[i].K, .batch = 1, .tasks = 1,
            .model_flops = flops, .flops = flops, .bytes = moved,
        };
    for (i64 i = 0; i < 2 * COUNT_OF(norms); i++)
        if (norms[i / 2])
            p->ops[p->n++] = *norms[i / 2];
    p->parameters = (double)(in * columns + 2 * spec->width);
    p->matrices = (double)(in * columns);
    /* Of norms, what goes in and what comes out. */
    p->kept_bytes = bytes * 2 * (double)(rows * in) / (double)out->shape.tp;
    p->kept_as_rows[0] = p->kept_bytes / 2;
    p->kept_cut_bytes = out->shape.tp > 1 ? p->kept_bytes : 0;
}

/* --- the program ---------------------------------------------------------------------- */

static struct train_config config_of(const struct plan_shape *shape, struct arena *a)
{
    struct train_config c = { 0 };
    option_set_defaults(train_options, &c, a);
    c.train.seq = shape->sequence;
    c.train.batch = shape->micro_batch;
    return c;
}

static int build(struct step_program *step, struct model **model, struct reading *r,
                 struct arena *a)
{
    const struct plan_shape *shape = &r->out->shape;
    struct layout layout = layout_single();
    struct train_config config = config_of(shape, a);
    struct step_io io;
    layout.tp = shape->tp;
    layout.cp = shape->cp;
    layout.priced = true;
    TRY(layout_check(&layout, r->spec, shape->tp * shape->cp, shape->micro_batch, shape->sequence, 2));
    struct mesh *mesh = ARENA_NEW(a, struct mesh);
    *mesh = mesh_at(&layout, 0);
    TRY(stages_place(&mesh->stages, &layout, a));
    struct model_part part = mesh_part(mesh, r->spec);
    model_outline(model, r->spec, shape->dtype, step_needs(&config), shape->sequence, &part, a);
    step_io_new(&io, r->spec, 1, a);
    struct step_shape rows = { shape->micro_batch, shape->sequence, 2, 1 };
    TRY(step_program_new(step, *model, &config, &rows, &io, mesh, a));
    r->program = step->program;
    return OK;
}

static int read_program(struct plan_ops *out, const struct model_spec *spec, struct arena *a)
{
    struct reading r = { .out = out, .spec = spec };
    struct step_program step;
    struct model *model;
    TRY(build(&step, &model, &r, a));
    out->heads = model->local.heads;
    out->kv_heads = model->local.kv_heads;
    out->key_size = spec_key_size(spec);
    out->value_size = spec_value_size(spec);
    out->width = spec->width;
    out->shared = spec->shared_hidden > 0;
    const struct param *head = model_param(model, P_HEAD, -1);
    out->vocab = head ? head->shard.dim[0] : spec->vocab;
    TRY(read_tasks(&r));
    count_kept(&r, a);
    count_parameters(&r, model);
    if (spec->mtp_depth > 0)
        read_mtp(out, spec);
    return OK;
}

int plan_ops_new(struct plan_ops *out, const struct model_spec *spec,
                 const struct plan_shape *shape)
{
    struct arena a;
    struct model_spec small = small_spec(spec, shape);
    *out = (struct plan_ops){ .shape = *shape };
    out->shape.ep = 1;
    out->rows = shape->micro_batch * shape->sequence / shape->cp;
    arena_init(&a);
    int rc = read_program(out, &small, &a);
    arena_fini(&a);
    if (rc == OK)
        plan_ops_share(out, shape->ep, false);
    return rc;
}

static void halve(struct plan_messages *m)
{
    m->bytes /= 2;
    m->calls /= 2;
    m->half_bytes /= 2;
}

/* One matrix of an expert is whole again, and meets a tp-th of the rows. What tp had cut is the
 * side that is not the width. */
static void unfold_op(struct plan_op *op, i64 tp, i64 width)
{
    bool gradient = op->phase == PHASE_WEIGHT_GRAD;
    i64 *rows = gradient ? &op->K : &op->M, *one = gradient ? &op->M : &op->K;
    *rows = ceil_div(*rows, tp);
    *(*one == width ? &op->N : one) *= tp;
    op->bytes += op->expert_bytes * (double)(tp - 1);
    op->expert_bytes *= (double)tp;
}

static void fold(struct plan_ops *ops)
{
    struct plan_piece_ops *p = &ops->pieces[PLAN_SPARSE];
    const i64 tp = ops->shape.tp;
    for (int i = 0; i < p->n; i++) {
        if (p->ops[i].expert_bytes > 0)
            unfold_op(&p->ops[i], tp, ops->width);
        else if (!strcmp(p->ops[i].name, op_expert_gather.name) ||
                 !strcmp(p->ops[i].name, op_expert_combine.name) ||
                 !strcmp(p->ops[i].name, op_expert_combine_grad.name))
            p->ops[i].bytes /= (double)tp;
    }
    p->expert_parameters *= (double)tp;
    p->kept_bytes -= p->kept_for_experts * (1 - 1 / (double)tp);
    p->kept_as_rows[0] -= p->kept_for_experts * (1 - 1 / (double)tp);
    if (ops->shared) /* whose rows are gathered still */
        return;
    for (int i = 0; i < 2; i++)
        halve(&p->tp[i]);
    halve(&p->gathered);
    halve(&p->summed);
    p->gathered_bytes /= 2;
}

void plan_ops_share(struct plan_ops *ops, i64 ep, bool folds)
{
    if (folds && ep > 1 && ops->shape.tp > 1)
        fold(ops);
    ops->shape.ep = ep;
    for (int part = 0; part < PLAN_PARTS; part++) {
        struct plan_piece_ops *p = &ops->pieces[part];
        p->expert_parameters /= (double)ep;
        for (int i = 0; i < p->n; i++) {
            struct plan_op *op = &p->ops[i];
            if (op->expert_bytes == 0)
                continue;
            op->batch /= ep;
            op->bytes -= op->expert_bytes * (1 - 1 / (double)ep);
            op->expert_bytes /= (double)ep;
            if (op->phase == PHASE_WEIGHT_GRAD)
                op->K *= ep;
            else
                op->M *= ep;
        }
    }
}

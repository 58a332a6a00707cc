/* Commands that fixes and confirmations name, as they are for one run's folder. */
#include "base/text.h"
#include "diagnose/findings.h"

#include <stdio.h>
#include <string.h>

/* text with every `word` replaced, unless that would not fit. */
static void put_in_place(char *text, i64 size, const char *word, const char *instead)
{
    struct text out = { 0 };
    const char *from = text, *at;
    while ((at = strstr(from, word)) != NULL) {
        text_add_bytes(&out, from, at - from);
        text_add(&out, instead);
        from = at + strlen(word);
    }
    text_add(&out, from);
    if (from != text && out.length < size)
        memcpy(text, out.data, (size_t)out.length + 1);
    text_fini(&out);
}

/* As one word of a shell's command line. */
static void add_word(struct text *out, const char *word)
{
    const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:,=+-";
    if (*word && *word != '-' && word[strspn(word, plain)] == '\0') {
        text_add(out, word);
        return;
    }
    text_add(out, *word == '-' ? "./'" : "'");
    for (; *word; word++)
        if (*word == '\'')
            text_add(out, "'\\''");
        else
            text_add_bytes(out, word, 1);
    text_add(out, "'");
}

/* What is wrong with a host in a simulation was put there: it is gone without. */
static const char without_inject[] = "headway train RECIPE --run.inject ''";

/* The run's words, as commands have them. */
struct run_words {
    struct text folder, recipe, beside;
};

static void name_run(struct finding *f, const struct run_words *w, const struct measure *m)
{
    const bool simulated = m->config.simulated, saves = f->confirm_steps > 0;
    struct text trial = { 0 }, again = { 0 };
    text_printf(&again, "headway train %s%s", w->recipe.data, w->beside.data);
    text_printf(&trial, "%s%s --train.steps %lld --run.name ''", again.data,
                simulated || saves ? "" : " --measure",
                (long long)(saves ? f->confirm_steps : 40));
    if (simulated && !strstr(f->confirm, "RECIPE") && !strstr(f->confirm, "RUN")) {
        snprintf(f->confirm, sizeof f->confirm, "%s", without_inject);
        f->look[0] = '\0';
    }
    put_in_place(f->confirm, sizeof f->confirm, "headway train RECIPE", trial.data);
    put_in_place(f->confirm, sizeof f->confirm, "RECIPE", w->recipe.data);
    put_in_place(f->confirm, sizeof f->confirm, "RUN", w->folder.data);
    for (int i = 0; i < f->n_evidence; i++)
        put_in_place(f->evidence[i], FINDING_TEXT, "headway train RECIPE", again.data);
    put_in_place(f->fix, sizeof f->fix, "headway train RECIPE", again.data);
    text_fini(&trial);
    text_fini(&again);
}

void findings_name_run(struct findings *f, const char *folder, const struct measure *m)
{
    struct run_words w = { 0 };
    struct text recipe = { 0 };
    text_printf(&recipe, "%s/recipe.yaml", folder);
    add_word(&w.folder, folder);
    add_word(&w.recipe, recipe.data);
    if (m->config.simulated)
        text_printf(&w.beside, " --clock virtual%s", m->config.rates);
    else if (m->n_ranks > 1)
        text_printf(&w.beside, " --ranks %lld", (long long)m->n_ranks);
    else
        text_add(&w.beside, "");
    for (int i = 0; i < f->n; i++)
        name_run(&f->at[i], &w, m);
    text_fini(&recipe);
    text_fini(&w.folder);
    text_fini(&w.recipe);
    text_fini(&w.beside);
}

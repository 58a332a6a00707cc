/* Evaluating by the command: what counts is what counted in training. */
#include "cli/program.h"
#include "test.h"

#include <jansson.h>
#include <stdlib.h>

static int prepare(void **state)
{
    (void)state;
    setenv("D", "eval-test", 1);
    make_corpus();
    shell("cd $D && for i in $(seq 200); do "
          "echo \"{\\\"prompt\\\": \\\"how many birds saw cat $i\\\", "
          "\\\"answer\\\": \\\"it saw $((i * i % 97)) birds\\\"}\"; done >qa.jsonl && "
          "$H data prepare qa.jsonl --format jsonl --tokenizer tok.json --licence none "
          "--val-fraction 0.2 --out qa --quiet >/dev/null", 0);
    shell("cd $D && cat >r.yaml <<X\n"
          "model: {spec: laptop-2m, override: {layers: 1, width: 32, hidden: 48, "
          "heads: 2, kv_heads: 2}}\n"
          "data: {sources: qa, tokenizer: tok.json, loss_on: answers}\n"
          "train: {steps: 3, batch: 2, seq: 32, threads: 1}\nX\n"
          "timeout 120 $H train r.yaml --quiet --set run.name=qa", 0);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    shell("rm -rf $D", 0);
    return 0;
}

static json_t *evaluate_model(const char *model, const char *options)
{
    json_t *o = json_loads(shellf(0, "cd $D && timeout 120 $H eval %s --data qa --seq 32 "
                                  "--json %s", model, options), 0, NULL);
    CHECK(json_is_object(o));
    return o;
}

static json_t *evaluate(const char *options)
{
    return evaluate_model("runs/qa", options);
}

TEST(answers_count_as_they_did_in_training)
{
    json_t *all = evaluate(""), *answers = evaluate("--loss-on answers");
    json_int_t tokens = json_integer_value(json_object_get(answers, "tokens"));
    CHECK(tokens > 0 && tokens < json_integer_value(json_object_get(all, "tokens")));
    shellf(0, "grep -q 'held-out loss %.4f, .*(%lld tokens)' $D/runs/qa/log.txt",
           json_real_value(json_object_get(answers, "loss")), (long long)tokens);
    json_decref(all);
    json_decref(answers);
}

static double answers_cost(const char *model, const char *options)
{
    json_t *o = evaluate_model(model, options);
    double loss = json_real_value(json_object_get(o, "loss"));
    json_decref(o);
    return loss;
}

/* By who evaluates, samples and exports, as in training. */
TEST(averaged_weights_are_used_where_they_are_asked_for)
{
    shell("cd $D && timeout 120 $H train r.yaml --quiet --set run.name=ema --set train.ema=0.5 "
          "--set optim.lr=1e-2 --set lr.warmup=0 && "
          "$H model export runs/ema --ema --out averaged && "
          "$H model export runs/ema --out last", 0);
    double averaged = answers_cost("runs/ema", "--loss-on answers --ema");
    double last = answers_cost("runs/ema", "--loss-on answers");
    CHECK(averaged > last + 1e-3 || averaged < last - 1e-3);
    CHECK(answers_cost("averaged", "--loss-on answers") == averaged);
    CHECK(answers_cost("last", "--loss-on answers") == last);
    shellf(0, "cd $D/runs/ema && grep -q 'held-out loss %.4f (averaged weights), ' log.txt && "
              "grep -q 'held-out loss %.4f, ' log.txt", averaged, last);
    shell("cd $D && sample() { $H sample $1 --prompt how --tokens 8 --temperature 0 --no-stop "
          "$2; } && sample runs/ema --ema >1 && sample averaged >2 && cmp 1 2", 0);
    CHECK(strstr(shell("cd $D && $H model export runs/qa --ema --out none 2>&1", 2),
                 "holds no averaged weights"));
    CHECK(strstr(shell("cd $D && $H sample averaged --prompt how --ema 2>&1", 2),
                 "averaged holds no averaged weights; leave --ema out"));
}

/* Rows that there are not take no memory: a hundred thousand would take gigabytes. */
TEST(a_batch_is_no_larger_than_what_is_evaluated)
{
    shell("cd $D && peak() { $H eval runs/qa $1 --seq 32 --batch $2 >out-$2 & p=$!; most=0; "
          "while kill -0 $p 2>/dev/null; do m=$(awk '/VmHWM/ { print $2 }' /proc/$p/status); "
          "[ ${m:-0} -gt $most ] && most=$m; sleep 0.01; done; wait $p || exit 1; "
          "[ $most -lt 1500000 ] || exit 2; }; "
          "peak '--data qa' 100000 && peak '--data qa' 4 && cmp out-100000 out-4 && "
          "peak '--text t.txt' 100000 && peak '--text t.txt' 4 && cmp out-100000 out-4", 0);
}

TEST(text_is_not_taken_for_shards)
{
    CHECK(strstr(shell("cd $D && $H eval runs/qa --data qa.jsonl --seq 32 2>&1", 2),
                 "qa.jsonl holds no shards: give a folder that 'headway data prepare' made, "
                 "or text by"));
}

/* Some of these listings is the folder's. */
TEST(a_folder_that_may_not_be_read_is_told_so)
{
    const char *text = shell("cd $D && mkdir -p empty && for n in 1 2 3 4 5 6; do "
                             "HEADWAY_FAULT=opendir:$n:EACCES $H eval runs/qa --data empty 2>&1; "
                             "HEADWAY_FAULT=opendir:$n:EACCES $H tokenizer encode empty 2>&1; "
                             "done; true", 0);
    CHECK(strstr(text, "headway: list empty: Permission denied"));
    CHECK(strstr(text, "empty holds no shards"));
    CHECK(strstr(shell("cd $D && HEADWAY_FAULT=opendir:1:EACCES $H eval runs/qa --text qa.jsonl "
                       "--tokenizer empty 2>&1; true", 0), "Permission denied"));
}

TEST(compressed_text_is_the_text_that_was_compressed)
{
    shell("cd $D && gzip -k t.txt && $H eval runs/qa --text t.txt --seq 32 >plain && "
          "$H eval runs/qa --text t.txt.gz --seq 32 | cmp - plain && "
          "$H eval runs/qa --text - --seq 32 <t.txt.gz | cmp - plain", 0);
    CHECK(strstr(shell("cd $D && head -c 500 t.txt.gz >cut.gz; $H eval runs/qa --text cut.gz 2>&1",
                       1), "ends in the middle of its compressed data"));
}

/* The ids would mean other text. */
TEST(data_of_another_tokenizer_are_refused)
{
    shell("cd $D && $H tokenizer train t.txt --vocab-size 280 --out small.json --quiet && "
          "$H data prepare qa.jsonl --tokenizer small.json --val-fraction 0.2 "
          "--out small --quiet", 0);
    CHECK(strstr(shell("cd $D && $H eval runs/qa --data small --seq 32 2>&1", 2),
                 "was prepared with another tokenizer"));
    CHECK(strstr(shell("cd $D && $H eval runs/qa --text t.txt --seq 32 --tokenizer small.json 2>&1",
                       0), "small.json is not the tokenizer that the model was trained with"));
    CHECK(!strstr(shell("cd $D && $H eval runs/qa --text t.txt --seq 32 2>&1", 0), "is not the"));
    CHECK(strstr(shell("cd $D && $H sample runs/qa --tokens 2 --tokenizer small.json 2>&1 "
                       ">/dev/null", 0), "not the tokenizer that the model was trained with"));
}

/* An option that would be changed or passed over is refused. */
TEST(options_that_cannot_be_followed_are_refused)
{
    CHECK(strstr(shell("cd $D && $H eval runs/qa --text t.txt --seq 32 --stride 32 2>&1", 2),
                 "--stride 32 leaves nothing of a row of 32 tokens before what is asked; give 31"));
    shell("cd $D && $H eval runs/qa --text t.txt --seq 32 --stride 31", 0);
    CHECK(strstr(shell("cd $D && $H eval runs/qa --data qa --seq 32 --stride 8 2>&1", 2),
                 "--stride is for --text"));
    CHECK(strstr(shell("cd $D && $H eval runs/qa --text t.txt --tokens 8 2>&1", 2),
                 "--tokens is for --data"));
    CHECK(strstr(shell("cd $D && $H eval runs/qa --text t.txt --loss-on answers 2>&1", 2),
                 "--loss-on is for --data"));
    CHECK(strstr(shell("cd $D && $H eval runs/qa --text t.txt --seq 1000000 2>&1", 2),
                 "is longer than the model's"));
    CHECK(strstr(shell("cd $D && $H eval t.txt --text t.txt 2>&1", 2),
                 "t.txt is neither a Hugging Face folder (no config.json) nor a run"));
    CHECK(strstr(shell("cd $D && $H checkpoint list t.txt 2>&1", 2), "t.txt is no folder"));
}

TEST(an_export_goes_into_no_folder_of_other_files)
{
    shell("cd $D && mkdir mine mine/.git && $H model export runs/qa --out mine --quiet", 0);
    CHECK(strstr(shell("cd $D && $H model export runs/qa --out mine 2>&1", 2),
                 "mine has a model already; choose another folder, or replace the model in it"));
    shell("cd $D && $H model export runs/qa --out mine --overwrite --quiet && "
          "mkdir notes && echo mine >notes/config.json", 0);
    CHECK(strstr(shell("cd $D && $H model export runs/qa --out notes 2>&1", 2),
                 "notes has other files, such as config.json; choose another folder"));
    shell("cd $D && $H model export runs/qa --out notes --overwrite 2>&1", 2);
    shell("cd $D && test $(cat notes/*) = mine", 0);
    CHECK(strstr(shell("cd $D && $H model export runs/qa --out t.txt 2>&1", 1),
                 "t.txt: Not a dir"));
}

TEST(an_export_that_fails_leaves_no_folder)
{
    CHECK(strstr(shell("cd $D && "
                       "HEADWAY_FAULT=fsync:1:ENOSPC $H model export runs/qa --out hf 2>&1", 1),
                 "No space left"));
    shell("cd $D && test ! -e hf && $H model export runs/qa --out hf --quiet && "
          "test -e hf/tokenizer_config.json", 0);
}

TEST(answers_that_nobody_marked_are_refused)
{
    const char *said = shell("cd $D && $H eval runs/qa --data data --seq 32 --loss-on answers 2>&1",
                             2);
    CHECK(strstr(said, "data marks no answers"));
}

/* The newest checkpoint is what was trained: an older one is not taken for it unawares. */
TEST(a_damaged_newest_checkpoint_is_not_passed_over)
{
    shell("cd $D && cp -r runs/qa cut && cp -r cut/checkpoints/step-3 cut/checkpoints/step-9 && "
          "truncate -s 100 cut/checkpoints/step-9/param.safetensors", 0);
    CHECK(strstr(shell("cd $D && $H eval cut --data qa --seq 32 2>&1", 1), "step-9"));
    CHECK(strstr(shell("cd $D && $H model export cut --out cut-hf 2>&1", 1), "step-9"));
    shell("cd $D && $H eval cut/checkpoints/step-3 --data qa --seq 32", 0);
}

TEST(held_out_shards_that_are_gone_are_missed)
{
    shell("cd $D && cp -r qa lost && rm lost/val-*", 0);
    CHECK(strstr(shell("cd $D && $H train r.yaml --set data.sources=lost --set run.name=l 2>&1", 1),
                 "the ledger lists 1 val shards, 0 are there"));
}

TEST(data_beside_another_tokenizer_are_not_verified)
{
    shell("cd $D && cp -r qa odd && cp small.json odd/tokenizer.json", 0);
    CHECK(strstr(shell("cd $D && $H data info qa", 0), "verified    2 shards"));
    CHECK(strstr(shell("cd $D && $H data info odd 2>&1", 1),
                 "odd/tokenizer.json is not the tokenizer that made these tokens"));
}

TEST(only_whole_numbers_are_ids)
{
    CHECK(strstr(shell("cd $D && echo '[5]' | $H tokenizer decode --tokenizer tok.json | wc -l", 0),
                 "1"));
    CHECK(strstr(shell("cd $D && echo '[5, 1.5]' | $H tokenizer decode --tokenizer tok.json 2>&1",
                       1), "line 1: element 2 of the list is no id"));
    CHECK(strstr(shell("cd $D && echo '[4294967301]' | $H tokenizer decode --tokenizer tok.json "
                       "2>&1", 1), "line 1: the tokenizer has no token 4294967301; its ids are"));
}

TEST(an_ending_without_text_is_refused)
{
    shell("cd $D && echo '{\"ctx\": \"a cat\", \"endings\": [\"\", \" sat\"], "
          "\"label\": 0}' >quiz.jsonl", 0);
    CHECK(strstr(shell("cd $D && $H eval runs/qa --choices quiz.jsonl 2>&1", 1),
                 "quiz.jsonl:1: endings must be strings, none of them empty"));
}

/* transformers puts before a text what training put before a document. */
TEST(a_tokenizer_with_a_begin_and_an_end_says_so_in_its_file)
{
    shell("cd $D && $H tokenizer train t.txt --vocab-size 290 --out both.json --quiet --specials "
          "'<|begin_of_text|>,<|end_of_text|>' && $H tokenizer import --from both.json --quiet "
          "--out again.json && cmp both.json again.json", 0);
    json_t *o = json_load_file("eval-test/both.json", 0, NULL);
    json_t *all = json_object_get(json_object_get(o, "post_processor"), "processors");
    json_t *template = json_array_get(all, 1);
    json_t *first = json_array_get(json_object_get(template, "single"), 0);
    const json_t *id = json_object_get(json_object_get(first, "SpecialToken"), "id");
    CHECK(json_is_string(id));
    CHECK_STR(json_string_value(id), "<|begin_of_text|>");
    const json_t *token = json_object_get(json_object_get(template, "special_tokens"),
                                          "<|begin_of_text|>");
    CHECK_EQ(json_integer_value(json_array_get(json_object_get(token, "ids"), 0)), 0);
    json_decref(o);
    o = json_load_file("eval-test/tok.json", 0, NULL); /* one token before and behind documents */
    CHECK_STR(json_string_value(json_object_get(json_object_get(o, "post_processor"), "type")),
              "ByteLevel");
    json_decref(o);
}

/* Where a tokenizer has a token for the begin of a text and another for its end, as Llama 3's, all
 * that is asked begins as documents did in training: only there is Z followed by y. */
TEST(what_is_asked_begins_as_documents_do)
{
    shell("cd $D && for i in $(seq 300); do "
          "echo \"{\\\"text\\\": \\\" Z y Z n Z n Z n Z n Z n Z n Z n Z n Z n Z n$i\\\"}\"; done "
          ">z.jsonl && $H tokenizer train z.jsonl --vocab-size 258 --quiet --out begin.json "
          "--specials '<|begin_of_text|>,<|end_of_text|>' && $H train r.yaml --quiet "
          "--set data.tokenizer=begin.json --set run.name=begin --set data.sources=z.jsonl "
          "--set data.loss_on=all --set train.steps=1000 --set train.batch=8 --set train.seq=16 "
          "--set optim.lr=1e-2 --set lr.warmup=5 --set model.override='{layers: 2, width: 32, "
          "hidden: 48, heads: 2}' --set eval.every=0", 0);
    json_t *o = json_loads(shell("cd $D && printf ' Z y' | $H eval runs/begin --text - --json", 0),
                           0, NULL);
    const double loss = json_real_value(json_object_get(o, "loss"));
    CHECK(loss > 0 && loss < 0.1); /* after an end of text, 2.4 */
    json_decref(o);
    shell("cd $D && echo '{\"ctx\": \" Z\", \"endings\": [\"y\", \"n\"], \"label\": 0}' "
          ">z-quiz.jsonl", 0);
    CHECK(strstr(shell("cd $D && $H eval runs/begin --choices z-quiz.jsonl", 0),
                 "accuracy             1.0000"));
}

/* It was stopped while its data were prepared. */
TEST(a_run_that_has_its_data_only_begins_when_it_is_resumed)
{
    shell("cd $D && mkdir -p runs/waits/data", 0);
    CHECK(strstr(shell("cd $D && $H train r.yaml --set run.name=waits --resume 2>&1", 0),
                 "holds prepared data only: training starts at step 0"));
    CHECK(strstr(shell("cd $D && $H train r.yaml --set run.name=no --resume 2>&1", 2),
                 "nothing to resume"));
}

TEST(a_text_with_too_few_pairs_is_told)
{
    CHECK(strstr(shell("cd $D && echo ab ab >few.txt && "
                       "$H tokenizer train few.txt --vocab-size 400 --out few.json", 0),
                 "258 tokens: the text has no more pairs that repeat"));
}

/* `transformers` ends an answer where it ended in training. */
TEST(an_export_says_where_answers_end)
{
    shell("cd $D && $H tokenizer train t.txt --vocab-size 290 --out chat.json --quiet "
          "--specials '<|endoftext|>,<|im_start|>,<|im_end|>' && "
          "$H train r.yaml --quiet --set data.tokenizer=chat.json --set run.name=chat "
          "--set data.sources=qa.jsonl --set data.loss_on=all && "
          "$H model export runs/chat --out chat-hf --quiet", 0);
    json_t *o = json_load_file("eval-test/chat-hf/generation_config.json", 0, NULL);
    CHECK(json_array_size(json_object_get(o, "eos_token_id")) == 2);
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = { ONE(answers_count_as_they_did_in_training),
                                        ONE(averaged_weights_are_used_where_they_are_asked_for),
                                        ONE(a_batch_is_no_larger_than_what_is_evaluated),
                                        ONE(text_is_not_taken_for_shards),
        ONE(a_folder_that_may_not_be_read_is_told_so),
                                        ONE(compressed_text_is_the_text_that_was_compressed),
                                        ONE(data_of_another_tokenizer_are_refused),
                                        ONE(a_damaged_newest_checkpoint_is_not_passed_over),
                                        ONE(held_out_shards_that_are_gone_are_missed),
                                        ONE(data_beside_another_tokenizer_are_not_verified),
                                        ONE(only_whole_numbers_are_ids),
                                        ONE(an_ending_without_text_is_refused),
                                        ONE(an_export_says_where_answers_end),
        ONE(a_tokenizer_with_a_begin_and_an_end_says_so_in_its_file),
                                        ONE(what_is_asked_begins_as_documents_do),
                                        ONE(a_run_that_has_its_data_only_begins_when_it_is_resumed),
                                        ONE(a_text_with_too_few_pairs_is_told),
                                        ONE(options_that_cannot_be_followed_are_refused),
                                        ONE(an_export_goes_into_no_folder_of_other_files),
                                        ONE(an_export_that_fails_leaves_no_folder),
                                        ONE(answers_that_nobody_marked_are_refused) };
    return cmocka_run_group_tests(tests, prepare, clean);
}

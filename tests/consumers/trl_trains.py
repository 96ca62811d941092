"""Run with trl's own environment: FOLDER of an export in, one JSON object out.

The dataset is loaded as the card says, checked by trl's own functions and given to its DPOTrainer,
which prepares it (prompt, chosen and rejected as text) and makes one step with a tiny random model
over bytes: nothing is downloaded.
"""

import copy
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp()

import torch
from datasets import load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.data_utils import is_conversational


def tokenizer():
    bytes_ = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = Tokenizer(models.BPE(vocab=bytes_ | {"<end>": len(bytes_)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", pad_token="<end>")


def main(folder):
    data = load_dataset(folder, split="votes")
    words = tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(words), n_positions=2048, n_embd=16, n_layer=1, n_head=2)
    options = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        max_length=2048,
        bf16=False,
        gradient_checkpointing=False,
    )
    model = GPT2LMHeadModel(config)
    trainer = DPOTrainer(
        model=model,
        ref_model=copy.deepcopy(model),  # it comes from no hub, so trl cannot load it again
        args=options,
        train_dataset=data,
        processing_class=words,
    )
    done = trainer.train()
    first = trainer.train_dataset[0]
    prompt = words.decode(first["prompt_ids"])
    print(
        json.dumps(
            {
                "rows": len(data),
                "conversational": is_conversational(data[0]),
                "prepared": sorted(trainer.train_dataset.column_names),
                "prompt": prompt,
                "chosen": words.decode(first["chosen_ids"]),
                "steps": done.global_step,
                "loss": done.training_loss,
            }
        )
    )


main(sys.argv[1])

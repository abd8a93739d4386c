"""From a plan to pixels: chips cut of stacks of scenes, written shard by shard."""

"""Do the margin bounds hold on real flips? Every faulty run compared with its clean twin, flip by flip."""

# Python 3.11 and make are all that must be there; every target makes what it needs.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
# METHOD=id3 (the default), cemiface or idbooth; TRAIN=1 starts from nothing instead of from data/models; PROFILE=: any
# other file of nbs/runs/params.
METHOD  ?= id3
PROFILE ?= $(if $(TRAIN),train,$(if $(filter id3,$(METHOD)),demo,$(METHOD)))
# Arguments of JupyterLab, such as LAB="--no-browser --port 9000".
LAB     ?=

bin    = .venv/bin
export PATH := $(CURDIR)/$(bin):$(PATH)

.PHONY: setup demo lab test check notebooks readme docs hooks
setup: .venv/.ready
.venv/.ready: pyproject.toml constraints.txt
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(bin)/pip install -q -c constraints.txt $$(grep '^torch==' constraints.txt)
	$(bin)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(bin)/facesyn run $(PROFILE)

# Notebooks are cleaned on saving by .jupyter, here only: your own ~/.jupyter is not touched.
lab: setup hooks
	JUPYTER_CONFIG_PATH=$(CURDIR)/.jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH} \
	  $(bin)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB) --LabApp.default_url=/lab/tree/nbs/index.ipynb

# The laws of the house; notebooks clean, export in sync, no orphans; profiles that fit their runs; then lint.
quick = tests/house
notebooks: setup
	$(bin)/pytest -q -x $(quick)
	$(bin)/ruff check facesyn nbs tests bench
	$(bin)/ruff format --check nbs tests bench

check: notebooks
	$(bin)/pytest -q -x tests/runs

# One thread each: beside other work, the threads of small networks wait for each other.
test: notebooks
	OMP_NUM_THREADS=1 nbdev_test --n_workers 2 --timing
	OMP_NUM_THREADS=1 $(bin)/pytest -q $(addprefix --ignore=,$(quick))

# Links lead on from nbs/ in the notebook, from the root in the README.
readme: setup
	jupyter nbconvert --to markdown --stdout nbs/index.ipynb 2>/dev/null | sed -E 's%\]\(([^:)#]+\))%](nbs/\1%g; s%\]\(nbs/\.\./%](%g' > README.md

# The site in data/docs/site: notebooks are run (seven minutes the first time, on two free cores), later only those that changed.
docs: setup
	$(bin)/pip install -q -c constraints.txt -e '.[docs]'
	$(bin)/python -m facesyn.report.site

# Notebooks are merged cell by cell; only for a git checkout in which they are edited.
hooks: setup
	if [ -d .git ] && [ -z "$$CI" ]; then \
	  git config --local include.path ../.gitconfig && \
	  git config --local merge.nbdev-merge.driver '$(bin)/nbdev_merge %O %A %B %P'; fi

# What the experiment scripts of commands_gpu/ and commands_tpu/ share; they source it and call `experiment "$@"`.
#
# A script sets: EXPERIMENT (also its file name), SIZES (image counts it offers), SWITCHES (Hydra overrides),
# PLATFORM (gpu | tpu).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="$ROOT/.venv/bin/python"
[ -x "$PYTHON" ] || PYTHON=python
declare -A MEANING=([1]="1 image sanity check" [10]="10 images main experiment" [100]="100 images final eval")

usage() {
  local flags=""
  for n in "${SIZES[@]}"; do flags+=" [--$n]"; done
  echo "사용법: bash $EXPERIMENT.sh$flags"
  for n in "${SIZES[@]}"; do printf '  %-6s: %s\n' "--$n" "${MEANING[$n]}"; done
  printf '  %-6s: %s\n' "--demo" "the same on the shipped prior and images; alone it means --demo --${SIZES[0]}"
}

experiment() {
  local sizes=() demo=false
  if [ $# -eq 0 ]; then usage; exit 0; fi
  for argument in "$@"; do
    case " ${SIZES[*]} " in
      *" ${argument#--} "*) [ "$argument" != "${argument#--}" ] && { sizes+=("${argument#--}"); continue; } ;;
    esac
    if [ "$argument" = "--demo" ]; then demo=true; continue; fi
    case "$argument" in
      --1|--10|--100) echo "$EXPERIMENT has no $argument run" >&2 ;;
      *) echo "unknown argument: $argument" >&2 ;;
    esac
    usage >&2
    exit 2
  done
  [ ${#sizes[@]} -gt 0 ] || sizes=("${SIZES[0]}")
  for n in "${sizes[@]}"; do run_size "$n" "$demo" || exit $?; done
}

run_size() {
  local n=$1 demo=$2 suffix="" device=(use_tpu=false gpu=0)
  local set=(data=test-imagenet model=imagenet256ldm task_group=ldm_langevin) label=imagenet
  if [ "$demo" = true ]; then set=(data=demo-scenes model=demo-scenes task_group=demo_langevin); label=demo; fi
  if [ "$PLATFORM" = tpu ]; then device=(use_tpu=true); suffix=_tpu; fi
  local command=("$PYTHON" posterior_sample.py "${set[@]}" "${SWITCHES[@]}" "data.end_id=$n" "${device[@]}"
                 "save_dir=results/$EXPERIMENT$suffix" "name=${label}_$n$suffix")
  echo "+ ${command[*]}"
  (cd "$ROOT" && "${command[@]}")
}

# What the experiment scripts of commands_gpu/ share; they source it and call `experiment "$@"`.
#
# A script sets: EXPERIMENT (its own name and that of configs/experiment/$EXPERIMENT.yaml, the one place of its switches), SIZES (image
# counts it offers) or SETS (image sets, 100 images each).
# The scripts of commands_tpu/ are the same ones with PLATFORM=tpu in the environment; anything else means a GPU.

source "$(dirname "${BASH_SOURCE[0]}")/python.sh"
RUNS=("${SIZES[@]}" "${SETS[@]}")                       # one flag each
ALONE=("${SETS[@]}")                                    # what --demo alone runs
[ ${#ALONE[@]} -gt 0 ] || ALONE=("${SIZES[0]}")
declare -A MEANING=([1]="1 image sanity check" [10]="10 images main experiment" [90]="images 10 to 99" [100]="100 images final eval"
                    [imagenet]="100 ImageNet images" [ffhq]="100 FFHQ images")

usage() {
  local width=6 n
  for n in "${RUNS[@]}"; do [ $((${#n} + 2)) -le $width ] || width=$((${#n} + 2)); done
  local line="bash $EXPERIMENT.sh$(printf ' [--%s]' "${RUNS[@]}") [--demo]"
  echo "usage: $line"
  echo "사용법: $line"
  for n in "${RUNS[@]}"; do printf '  %-*s: %s\n' $width "--$n" "${MEANING[$n]}"; done
  printf '  %-*s: %s\n' $width "--demo" \
    "the same on the shipped prior and images, also with --1; alone it means --demo$(printf ' --%s' "${ALONE[@]}")"
}

experiment() {
  local runs=() demo=false hint="" one="" argument run
  if [ $# -eq 0 ]; then usage; exit 0; fi
  case " $* " in *" --demo "*) one="--1 " ;; esac        # one shipped image is a quick look at every experiment
  for argument in "$@"; do
    case " --demo$(printf ' --%s' "${RUNS[@]}") $one" in
      *" $argument "*) if [ "$argument" = --demo ]; then demo=true; else runs+=("${argument#--}"); fi ;;
      *) [[ $argument != --90 || " ${SIZES[*]} " != *" 100 "* ]] || hint="; the images 10 to 99 of --90 are part of --100"
         echo "unknown argument: $argument; $EXPERIMENT.sh takes$(printf ' --%s' "${RUNS[@]}" demo)$hint" >&2; exit 2 ;;
    esac
  done
  [ ${#runs[@]} -gt 0 ] || runs=("${ALONE[@]}")
  for run in "${runs[@]}"; do run_one "$run" "$demo" || exit $?; done
}

# run_one RUN DEMO: one of SIZES on ImageNet, or 100 images of one of SETS
run_one() {
  local images=imagenet n=$1 suffix="" device=(use_tpu=false gpu=0) range
  if [ ${#SETS[@]} -gt 0 ] && [ "$1" != 1 ]; then images=$1 n=100; fi
  local data=test-$images model=${images}256ldm group=ldm_langevin label=$images sampler=()
  # a certificate is of one setting, so experiment 7 has the same one on every prior: that of docs/research/real_models.md
  [ $EXPERIMENT != exp7_sequential ] || sampler=(sampler=short_denoised) group=ldm
  if [ "$2" = true ]; then
    case $images in imagenet) data=demo-scenes ;; ffhq) data=demo-faces ;; esac
    model=$data group=demo_langevin label=demo
    # experiment 0 is pinned to the unaccelerated sampler, experiment 5 takes the best; none measured on other priors
    case $EXPERIMENT in
      exp0_baseline|exp7_sequential) ;;
      exp5_final) sampler=(sampler=fast_denoised) ;;
      *) sampler=(sampler=fast) ;;
    esac
    if [ ${#SETS[@]} -gt 0 ] && [ "$1" != 1 ]; then label=$data; fi
  fi
  range=("data.end_id=$n")
  [ "$n" != 90 ] || range=(data.start_id=10 data.end_id=100)
  # experiment 8 brings its prior: the shipped one of photographs, for photographs of 256 pixels, of which five are shipped
  if [ $EXPERIMENT = exp8_coarse ]; then
    model=natural-32 group=photographs sampler=(sampler=fast)
    if [ "$2" = true ]; then
      [ "$n" != 90 ] || { echo "--demo --90: five photographs are shipped; take --demo --1 or --demo --10" >&2; exit 2; }
      data=demo-photos; [ "$n" = 1 ] || range=(data.end_id=5)
    fi
  fi
  if [ "${PLATFORM:-gpu}" = tpu ]; then device=(use_tpu=true); suffix=_tpu; fi
  local command=("$PYTHON" posterior_sample.py "data=$data" "model=$model" "task_group=$group" "${sampler[@]}" "experiment=$EXPERIMENT"
                 "${range[@]}" "${device[@]}" "save_dir=results/$EXPERIMENT$suffix" "name=${label}_$n$suffix")
  echo "+ ${command[*]}"
  (cd "$ROOT" && "${command[@]}")
}

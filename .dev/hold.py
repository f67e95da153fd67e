import sys, glob, torch, json
torch.set_num_threads(1)
import torch.nn.functional as F
from xdyna.synthbench.measures import *
from xdyna.evaluation.scene_motion import background, motion_where
files=sorted(glob.glob('/work/scratch/lat/*.pt'))
def stats(f):
    z=torch.load(f,weights_only=False); x=z['lat'].float(); r=z['ref'].float()
    t=z['truth']; m=(t.mask[0,:,0]>0.02).float(); om=(z['ownmask'][0]>0.02).float()
    mm=F.max_pool2d(m[:,None],8); oo=F.max_pool2d(om[None],8)[0]
    free=(1-F.max_pool2d(mm,3,1,1))[:,0]; ofree=1-F.max_pool2d(oo[None],3,1,1)[0,0]
    d=(x-r).square().mean(1)   # f h w
    w=free*ofree
    D=(d*w).sum(0)/w.sum(0).clamp(min=1); ok=w.sum(0)>3
    v=D[ok]; q=torch.quantile(v,torch.tensor([.05,.25,.5,.75,.95]))
    tm=motion_where(t.frames,background(t.mask)).item()
    return bool(t.human[0]),bool(t.still[0]),tm,[round(a,4) for a in q.tolist()]
for f in files:
    print(f.split('/')[-1],*stats(f))

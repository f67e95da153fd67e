import sys, glob, torch, json
torch.set_num_threads(1)
import torch.nn.functional as F
from xdyna.synthbench.measures import *
from xdyna.evaluation.scene_motion import background, motion_where
from xdyna.pipeline import XDynaPipeline
from xdyna.synthbench.generation import Animator
pipe=XDynaPipeline.from_pretrained("embedded",device="cpu"); an=Animator(pipe,refine_face=False)
def blur(d):  # f h w
    return F.avg_pool2d(F.pad(d[:,None],(1,1,1,1),mode='replicate'),3,1)[:,0]
def hold(z,lo,hi,plate=True,truemask=True):
    x=z['lat'].float(); r=z['ref'].float().reshape(1,-1,*x.shape[-2:]); t=z['truth']
    x=x.transpose(0,1) if x.shape[0]==1 else x
    m=(t.mask[0,:,0]>0.02).float(); om=(z['ownmask'][0]>0.02).float()
    mm=F.max_pool2d(m[:,None],8); oo=F.max_pool2d(om[None] if om.dim()==3 else om[None,None],8)[0,0]
    free=(1-F.max_pool2d(mm,3,1,1))[:,0]; ofree=1-F.max_pool2d(oo[None,None],3,1,1)[0,0]
    n=free.sum(0)
    mean=(x*free[:,None]).sum(0)/n.clamp(min=1)
    B=torch.where((ofree>0)[None],r[0],mean) if plate else r[0]
    d=(x-B).square().mean(1)
    D=(blur(d*free)/blur(free).clamp(min=1e-3)); D=(D*free).sum(0)/n.clamp(min=1)
    w=((hi-D)/(hi-lo)).clamp(0,1)*(n>=3)
    if not plate: w=w*ofree
    else:
        pass
    w=w[None]*free
    return x+w[:,None]*(B-x), w.mean().item()
if __name__=='__main__':
    out=[]
    sets=[('none',None),('r .02 .05',(.02,.05,False)),('p .02 .05',(.02,.05,True)),('p .04 .1',(.04,.1,True)),('p .08 .2',(.08,.2,True))]
    for f in sorted(glob.glob('/work/scratch/lat/*.pt')):
        z=torch.load(f,weights_only=False); t=z['truth']; row=[]
        for name,s in sets:
            if s is None: v=z['video'].float()/255; w=0
            else:
                l,w=hold(z,*s); v=an.decoded(l)[None]
            bg=background(t.mask)
            row.append((psnr(v,t.frames).item(),motion_where(v,bg).item(),w))
        tm=motion_where(t.frames,bg).item()
        print(f.split('/')[-1],'H' if t.human[0] else '-','still' if t.still[0] else f'{tm:.2f}','|',' | '.join(f'{a:.2f} {b:.2f} w{c:.2f}' for a,b,c in row),flush=True)

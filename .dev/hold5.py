import sys, glob, torch, os
torch.set_num_threads(1)
import torch.nn.functional as F
from xdyna.synthbench.measures import *
from xdyna.evaluation.scene_motion import background, motion_where
from xdyna.pipeline import XDynaPipeline
from xdyna.synthbench.generation import Animator
from xdyna.models.warping import PARTS, nearness
from xdyna.sampling.still import _smooth,_lately
pipe=XDynaPipeline.from_pretrained("embedded",device="cpu"); an=Animator(pipe,refine_face=False)
size=(256,256); cells=(32,32)
def fr(body,H,B):
    h=nearness(body,size=size,cells=cells,parts=PARTS[:1])>H; r=nearness(body,size=size,cells=cells,parts=PARTS[1:])>B
    return h.float(),(h&r).float()
def hold(x,r,body,own,lo,hi,M,H,B,mode,ret=False):
    head,free=fr(body,H,B); _,of=fr(own[None],H,B); of=of[0]
    seen=free.sum(0); mean=(x*free[:,None]).sum(0)/seen.clamp(min=1)
    plate=torch.where(of[None]>0,r[0],mean)
    d=(x-plate).square().mean(1)
    st=lambda a,f:((f*hi-a)/(f*(hi-lo))).clamp(0,1)
    if mode==0:
        near=_smooth(d*free)/_smooth(free).clamp(min=1e-3)
        al=(near*free).sum(0)/seen.clamp(min=1)
        return x+(st(al,1)*(seen>=3)*st(_lately(near),M)*free)[:,None]*(plate-x)
    # mode 1: body not excluded at application
    near=_smooth(d*free)/_smooth(free).clamp(min=1e-3)
    al=(near*free).sum(0)/seen.clamp(min=1)
    if mode==1:
        ok=(seen>=3)
        s=st(al,1)*ok*st(_lately(d),M)*head
    else:
        ever=_smooth(d).mean(0)
        pl2=torch.where((seen>=3)[None],plate,r[0])
        d2=(x-pl2).square().mean(1)
        al=torch.where(seen>=3,al,_smooth(d2).mean(0))
        plate=pl2
        s=st(al,1)*st(_lately(d2),M)*head
    if ret: return x+s[:,None]*(plate-x), s, plate, of
    return x+s[:,None]*(plate-x)
def pix(z,x,r,v):
    y,s,plate,of=hold(x,r,z['body'][0,1:],z['body'][0,0],*v[:6],ret=True)
    S=F.interpolate(s[:,None],size=size,mode='bilinear')
    O=F.interpolate(of[None,None],size=size,mode='bilinear')[0]
    pic=an.decoded(plate[None])[0]
    P=pic+O*(z['own'][0].float()-pic)
    vid=an.decoded(y) if v[6] else z['video'][0].float()/255
    return (vid+S*(P-vid))[None]
V=eval(sys.argv[2])
cs=sys.argv[3].split(',')
T=[[] for _ in V]
for c in cs:
    z=torch.load(f'{sys.argv[1]}/{c}.pt',weights_only=False); t=z['truth']; x=z['lat'].float(); bg=background(t.mask); tm=motion_where(t.frames,bg).item()
    r=z['ref'].reshape(1,-1,32,32).float(); row=[]
    for i,v in enumerate(V):
        vid=z['video'].float()/255 if v is None else pix(z,x,r,v)
        row.append((psnr(vid,t.frames).item(),motion_where(vid,bg).item())); T[i].append((*row[-1],tm))
    print(c,'still' if t.still[0] else f'{tm:.2f}','|',' | '.join(f'{a:.2f} {b:.2f}' for a,b in row),flush=True)
for v,a in zip(V,T):
    s=[k for k in a if k[2]==0]; m=[k for k in a if k[2]>.5]
    print(v,'still psnr %.2f walls %.2f'%(sum(k[0] for k in s)/max(len(s),1),sum(k[1] for k in s)/max(len(s),1)),'motion %.3f'%(sum(k[1] for k in m)/max(sum(k[2] for k in m),1e-6)))
